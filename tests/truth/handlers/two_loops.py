"""Make an index in one loop, and sum with it in the next."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    index = {slow(word): number for number, word in enumerate(run.each(WORDS, stage="Index"))}
    total = 0
    for word in run.each(reversed(WORDS), stage="Sum", total=len(WORDS)):
        total += index[word] * len(slow(word))
    return total
