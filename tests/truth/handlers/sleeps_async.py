"""Sleep behind a loop with state, in an async handler."""

from __future__ import annotations

from typing import Any

from milepost import AsyncRun
from tests.truth.work import aslow


async def handler(run: AsyncRun, folder: str) -> Any:
    state = run.state(total=0)
    for number in run.each(range(14), state=state):
        state.total += await aslow(number)
    await run.sleep("pause", 0.05)
    return state.total
