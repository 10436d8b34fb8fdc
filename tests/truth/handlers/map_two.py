"""Map the same words with two functions, one after the other."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    lengths = run.map(lambda word: len(slow(word)), WORDS)
    upper = run.map(lambda word: slow(word).upper(), WORDS)
    return [lengths, upper]
