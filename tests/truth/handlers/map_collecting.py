"""Collect the errors of bad items of a map."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    def measure(word: str) -> int:
        if slow(word).startswith("c"):
            raise ValueError(word)
        return len(word)

    return run.map(measure, WORDS, errors="collect", concurrency=2)
