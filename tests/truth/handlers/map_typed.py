"""Take sets as the declared results of a map."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def letters(word: str) -> set[str]:
    """Return the letters of a word."""
    return set(slow(word))


def handler(run: Run, folder: str) -> Any:
    return sorted(set().union(*run.map(letters, WORDS)))
