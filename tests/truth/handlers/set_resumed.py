"""Continue over a set, which has no order."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


REFUSED_BECAUSE = "which has no fixed order"


def handler(run: Run, folder: str) -> Any:
    for word in run.each(set(WORDS), resume=True):
        slow(word)
