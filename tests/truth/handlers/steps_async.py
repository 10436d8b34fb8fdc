"""Ask a model in several steps at once, then sum up in one more."""

from __future__ import annotations

import asyncio
from typing import Any

from milepost import Run
from tests.truth.work import aslow


async def handler(run: Run, folder: str) -> Any:
    parts = await asyncio.gather(*[run.step(f"part:{number}", ask, number) for number in range(10)])
    words = [await run.step(f"word:{number}", ask, number) for number in range(10)]
    return await run.step("sum", ask, sum(parts) + sum(words))


async def ask(number: int) -> int:
    return await aslow(number * number)
