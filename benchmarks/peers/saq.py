"""SAQ on Redis, with 100 jobs at a time."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.job_ticks import tick


async def noop(_: Any) -> int:
    """Do nothing."""
    return tick()


class Connected:
    """Submits by `enqueue`; SAQ has no call for many."""

    def __init__(self, url: str) -> None:
        from saq import Queue

        self._queue = Queue.from_url(url)

    async def submit(self) -> None:
        """Submit one job."""
        await self._queue.enqueue("noop")


connect = Connected


def work(url: str) -> None:
    """Run one worker."""
    from saq import Queue, Worker

    async def serve() -> None:
        await Worker(Queue.from_url(url), [noop], concurrency=100).start()

    asyncio.run(serve())
