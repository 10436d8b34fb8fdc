"""Sum over three loops inside of each other."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    sums: dict[str, int] = {}
    for word in run.each(WORDS[:4], stage="Words"):
        for letter in run.each(word):
            for number in run.each(range(3)):
                sums[letter] = sums.get(letter, 0) + slow(number)
    return sums
