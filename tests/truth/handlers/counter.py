"""Count the letters of all words in a variable."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    letters = 0
    for word in run.each(WORDS):
        letters += len(slow(word))
    return letters
