"""Sum the results of an async map."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import aslow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


async def handler(run: Run, folder: str) -> Any:
    async def measure(word: str) -> int:
        return len(await aslow(word))

    return sum(await run.map(measure, WORDS, key=str, concurrency=3))
