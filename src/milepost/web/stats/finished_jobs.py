"""Ends of jobs as one server process sees them in the feed, for its Prometheus metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from milepost.core.errors import StoreError
from milepost.core.events import Event, SeenEvents
from milepost.core.job import Job
from milepost.stores.protocol import Store

log = logging.getLogger("milepost.web.stats.finished_jobs")
log.addHandler(logging.NullHandler())

POLL_INTERVAL = 5.0
KINDS = frozenset({"completed", "failed", "cancelled", "retrying", "receipt"})

Listener = Callable[[Event, Job], None]


class FinishedJobs:
    """Follows the feed from the first call of `begin` on, and gives each end of a job or of an attempt to `listeners`."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self.listeners: list[Listener] = []
        self.on_error: Callable[[], None] | None = None
        self._store = store
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Follow the feed from now on, unless that has begun. Raises StoreError."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            position = (await self._store().feed(None)).position
            self._task = loop.create_task(self._read(position))

    def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _read(self, position: str) -> None:
        store, seen = self._store(), SeenEvents()
        while True:
            try:
                news = await store.feed(position, timeout=POLL_INTERVAL)
                for event in filter(seen.is_new, news.events):
                    if event.kind in KINDS:
                        await self._take(store, event)
                position = news.position
            except StoreError as error:
                log.info("the feed cannot be read; retrying: %s", error)
                if self.on_error is not None:
                    self.on_error()
                await asyncio.sleep(POLL_INTERVAL)

    async def _take(self, store: Store, event: Event) -> None:
        job = await store.get(event.job_id)
        if job is None:
            return
        for listener in self.listeners:
            listener(event, job)
