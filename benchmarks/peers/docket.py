"""docket (pydocket), tuned: 50 tasks at a time (more need more than its pool of connections), and a look for the next every 10 ms instead of every 250."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from benchmarks.job_ticks import tick

CHECK = timedelta(milliseconds=10)


async def noop() -> int:
    """Do nothing."""
    return tick()


class Connected:
    """Submits by `add`."""

    def __init__(self, docket: Any) -> None:
        self._docket = docket

    async def submit(self) -> None:
        """Submit one task."""
        await self._docket.add(noop)()  # the key of the task is made by `add`


async def connect(url: str) -> Connected:
    """Return a connected docket."""
    from docket import Docket

    docket = Docket(name="bench", url=url)
    await docket.__aenter__()
    docket.register(noop)
    return Connected(docket)


def work(url: str) -> None:
    """Run one worker."""
    from docket import Docket, Worker

    async def serve() -> None:
        async with Docket(name="bench", url=url) as docket:
            docket.register(noop)
            async with Worker(docket, concurrency=50, minimum_check_interval=CHECK) as worker:
                await worker.run_forever()

    asyncio.run(serve())
