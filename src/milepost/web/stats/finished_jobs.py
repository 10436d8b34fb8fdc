"""Ends of jobs as one server process sees them in the feed, for its Prometheus metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from milepost.core.errors import StoreError
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.manager.feed_follower import RETRY_DELAY, FeedFollower, FeedQueue

KINDS = frozenset({"completed", "failed", "cancelled", "retrying", "receipt"})

Listener = Callable[[Event, Job], None]


class FinishedJobs:
    """Gives each end of a job or of an attempt to `listeners`, from the first call of `begin` on."""

    def __init__(self, follower: FeedFollower) -> None:
        self.listeners: list[Listener] = []
        self.on_error: Callable[[], None] = lambda: None
        self._follower = follower
        self._queue = FeedQueue()
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Follow the feed from now on, unless that has begun. Raises StoreError."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._queue, self._task = FeedQueue(), loop.create_task(self._work())
            try:
                await self._follower.subscribe(self._queue)
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Stop following."""
        self._follower.unsubscribe(self._queue)
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _work(self) -> None:
        while True:
            news = await self._queue.take()
            if news.error is not None:
                self.on_error()
            for event in news.events:
                if event.kind in KINDS and (job := await self._job(event.job_id)) is not None:
                    for listener in self.listeners:
                        listener(event, job)

    async def _job(self, job_id: str) -> Job | None:
        """Return a job, as soon as the store can be read."""
        while True:
            try:
                return await self._follower.store().get(job_id)
            except StoreError:
                self.on_error()
                await asyncio.sleep(RETRY_DELAY)
