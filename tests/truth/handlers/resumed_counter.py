"""Count in a variable over a loop that resumes: the log must say what was passed over."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


MAY_DIFFER = True


def handler(run: Run, folder: str) -> Any:
    letters = 0
    for word in run.each(WORDS, resume=True):
        letters += len(slow(word))
    return letters
