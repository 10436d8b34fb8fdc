"""Take the results of a map whose items have keys, which come in another order each time."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    items = sorted(WORDS, key=lambda word: hash((word, run.attempt)))
    lengths = run.map(lambda word: [slow(word), len(word)], items, key=str)
    return sorted(lengths)
