"""BullMQ for Python, with 100 jobs at a time."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.job_ticks import tick


async def noop(_job: Any, _token: Any) -> int:
    """Do nothing."""
    return tick()


class Connected:
    """Submits by `add` and `addBulk`."""

    def __init__(self, url: str) -> None:
        from bullmq import Queue

        self._queue = Queue("bench", {"connection": url})

    async def submit(self) -> None:
        """Submit one job."""
        await self._queue.add("noop", {}, {})

    async def submit_many(self, count: int) -> None:
        """Submit the jobs in one transaction."""
        await self._queue.addBulk([{"name": "noop", "data": {}, "opts": {}} for _ in range(count)])


async def connect(url: str) -> Connected:
    """Return a queue, made within the event loop."""
    return Connected(url)


def work(url: str) -> None:
    """Run one worker."""
    from bullmq import Worker

    async def serve() -> None:
        Worker("bench", noop, {"connection": url, "concurrency": 100})
        await asyncio.Event().wait()

    asyncio.run(serve())
