"""Count in a process of its own."""

from __future__ import annotations

from typing import Any

from milepost import Jobs, Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


jobs = Jobs()


@jobs.job("isolated", isolation="process")
def handler(run: Run, folder: str) -> Any:
    letters = 0
    for word in run.each(WORDS * 5):
        letters += len(slow(word))
    return letters
