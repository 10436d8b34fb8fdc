"""Take results of 40 kB each from a map in a process of its own."""

from __future__ import annotations

from typing import Any

from milepost import Jobs, Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


jobs = Jobs()


@jobs.job("map_large_isolated", isolation="process")
def handler(run: Run, folder: str) -> Any:
    texts = run.map(lambda word: slow(word) * 20_000, WORDS * 4)
    return [len(text) for text in texts]
