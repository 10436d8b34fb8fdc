"""arq, tuned: it polls every 10 ms instead of every 500, and takes 100 jobs at a time instead of 10."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.job_ticks import tick


async def noop(_: Any) -> int:
    """Do nothing."""
    return tick()


class Connected:
    """Submits by `enqueue_job`; arq has no call for many."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def submit(self) -> None:
        """Submit one job."""
        await self._pool.enqueue_job("noop")


async def connect(url: str) -> Connected:
    """Return a pool of connections."""
    from arq.connections import RedisSettings, create_pool

    return Connected(await create_pool(RedisSettings.from_dsn(url)))


def work(url: str) -> None:
    """Run one worker."""
    from arq.connections import RedisSettings
    from arq.worker import Worker

    asyncio.set_event_loop(asyncio.new_event_loop())
    settings = RedisSettings.from_dsn(url)
    Worker([noop], redis_settings=settings, max_jobs=100, poll_delay=0.01, job_timeout=60).run()
