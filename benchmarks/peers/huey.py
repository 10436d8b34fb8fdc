"""Huey on Redis, which keeps the result of a task and no record of it; one thread is its fastest for no-ops."""

from __future__ import annotations

from typing import Any

from benchmarks.job_ticks import tick


def queue(url: str) -> Any:
    """Return the queue and its task."""
    from huey import RedisHuey

    made = RedisHuey("bench", url=url)
    return made, made.task(name="noop")(tick)


class Connected:
    """Submits by calling the task; Huey has no call for many."""

    def __init__(self, url: str) -> None:
        self._task = queue(url)[1]

    async def submit(self) -> None:
        """Submit one task."""
        self._task()


connect = Connected


def work(url: str) -> None:
    """Run its consumer."""
    made, _ = queue(url)
    made.create_consumer(workers=1, periodic=False, check_worker_health=False).run()
