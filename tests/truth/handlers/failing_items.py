"""Continue after bad items, and count the good ones."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    good = 0
    for number, word in enumerate(run.each(WORDS, key=str)):
        with run.item(word):
            slow(word)
            if number % 4 == 0:
                raise ValueError(word)
            good += 1
    return good
