"""An application with one handler, which blocks the event loop that it runs in, again and again, as it should not."""

from __future__ import annotations

import asyncio
import time

from milepost import Jobs, Run
from tests.worker.application import note

jobs = Jobs()


@jobs.job("blocks")
async def blocks(run: Run, seconds: float, each: float) -> None:
    """Block the event loop for `each` seconds at a time, until so many seconds are over."""
    note("blocks")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(each)  # noqa: ASYNC251 - that is what it is for
        await asyncio.sleep(0)
