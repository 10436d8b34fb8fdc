"""Sum the results of a map in three threads."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    def measure(word: str) -> dict[str, int]:
        return {"letters": len(slow(word))}

    return sum(found["letters"] for found in run.map(measure, WORDS, concurrency=3))
