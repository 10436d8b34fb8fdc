"""Count in a thread of an async handler."""

from __future__ import annotations

import asyncio
from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


async def handler(run: Run, folder: str) -> Any:
    def count() -> int:
        letters = 0
        for word in run.each(WORDS):
            letters += len(slow(word))
        return letters

    return await asyncio.to_thread(count)
