"""Take results of 40 kB each from a map."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    texts = run.map(lambda word: slow(word) * 20_000, WORDS)
    return [len(text) for text in texts]
