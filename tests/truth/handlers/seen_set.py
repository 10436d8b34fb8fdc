"""Collect the first letters of all words in a set."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    seen: set[str] = set()
    for word in run.each(WORDS):
        seen.add(slow(word)[0])
    return sorted(seen)
