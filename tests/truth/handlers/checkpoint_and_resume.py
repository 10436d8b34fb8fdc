"""Keep a position of its own beside that of a loop."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


REFUSED_BECAUSE = "a loop of this run has resume=True or state="


def handler(run: Run, folder: str) -> Any:
    for number, word in enumerate(run.each(WORDS, resume=True)):
        slow(word)
        run.checkpoint(number)
