"""Compare neighbours by zip over a tracked loop."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    return [slow(one) < other for one, other in zip(run.each(WORDS[:-1]), WORDS[1:], strict=True)]
