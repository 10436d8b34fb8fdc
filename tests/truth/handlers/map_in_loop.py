"""Map the letters of each word inside of a plain loop."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    found = []
    for word in run.each(WORDS[:5], stage="Words"):
        found += run.map(lambda letter: ord(slow(letter)), word)
    return found
