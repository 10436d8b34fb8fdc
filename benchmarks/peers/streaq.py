"""streaQ with 100 tasks at a time."""

from __future__ import annotations

from typing import Any

from benchmarks.job_ticks import tick


async def noop() -> int:
    """Do nothing."""
    return tick()


def worker(url: str) -> Any:
    """Return the worker, which is also its client, and its task."""
    from streaq import Worker

    made: Any = Worker(redis_url=url, concurrency=100)
    return made, made.task(noop)


class Connected:
    """Submits by `enqueue` and `enqueue_many`."""

    def __init__(self, made: Any, task: Any) -> None:
        self._worker, self._task = made, task

    async def submit(self) -> None:
        """Submit one task."""
        await self._task.enqueue()

    async def submit_many(self, count: int) -> None:
        """Submit the tasks in one pipeline."""
        await self._worker.enqueue_many([self._task.enqueue() for _ in range(count)])


async def connect(url: str) -> Connected:
    """Return a connected worker."""
    made, task = worker(url)
    await made.__aenter__()
    return Connected(made, task)


def work(url: str) -> None:
    """Run one worker."""
    worker(url)[0].run_sync()
