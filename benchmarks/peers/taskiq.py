"""Taskiq: its list broker (the faster of its two on Redis) and its result backend, on uvloop as its command does."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.job_ticks import tick


async def noop() -> int:
    """Do nothing."""
    return tick()


def broker(url: str) -> Any:
    """Return the broker and its task."""
    from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

    made = ListQueueBroker(url).with_result_backend(RedisAsyncResultBackend(url, result_ex_time=3600))
    made.register_task(noop, "noop")
    return made


class Connected:
    """Submits by `kiq`; Taskiq has no call for many."""

    def __init__(self, url: str) -> None:
        self._task = broker(url).find_task("noop")

    async def submit(self) -> None:
        """Submit one task."""
        await self._task.kiq()


connect = Connected


def work(url: str) -> None:
    """Run the receiver in this process."""
    import uvloop
    from taskiq.api import run_receiver_task

    async def serve() -> None:
        made = broker(url)
        await made.startup()
        await run_receiver_task(made, max_async_tasks=100, max_prefetch=100)

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(serve())
