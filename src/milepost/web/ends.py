"""The ends of all jobs, as one server process has seen them: those that were there when it was first asked, up to a bound,
and from then on each one that the feed tells of.

Owns the reading; what it adds up to is `tallies`, and others (the numbers for Prometheus) may listen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from milepost.core.errors import StoreError
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.stores.protocol import Select, Store
from milepost.stores.query import Query, position
from milepost.web.reading import Patient
from milepost.web.tallies import ENDS, Tallies

log = logging.getLogger("milepost.web.ends")
log.addHandler(logging.NullHandler())

READ_AT_FIRST = 20_000
BATCH = 500
STEP = 5.0
KINDS = frozenset({"completed", "failed", "cancelled", "retrying", "receipt"})

Listener = Callable[[Event, Job], None]


async def walk(store: Store, query: Query, most: int) -> AsyncIterator[Job | None]:
    """The newest jobs of a query. At most so many are looked at; None comes last when there were more."""
    patient, after, looked = Patient(store), None, 0
    while True:
        size = min(BATCH, most - looked)
        batch = await patient.select(query.select, size, after)
        for job in batch:
            if all(test(job) for test in query.tests):
                yield job
        looked += len(batch)
        if len(batch) < size:
            return
        if looked >= most:
            yield None
            return
        after = position(batch[-1])


class Ends:
    """What has ended, kept up while the server runs, from the first time that somebody asks."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self.tallies = Tallies()
        self.listeners: list[Listener] = []
        self.on_error: Callable[[], None] | None = None
        self._store = store
        self._missed_at: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None

    async def known(self) -> Tallies:
        """The ends, once those of before have been read. Raises StoreError."""
        await asyncio.shield(self.begin())
        return self.tallies

    def begin(self) -> asyncio.Future[None]:
        """Read, unless that is done already; the answer is there when the ends of before have been read."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._ready is None or self._task.done() or self._task.get_loop() is not loop:
            self.tallies, self._missed_at = Tallies(), None
            self._ready = loop.create_future()
            self._task = loop.create_task(self._read(self._ready))
        return self._ready

    def complete(self, since: int) -> bool:
        """Whether every end since a time (microseconds) is known."""
        return self._missed_at is None or since > self._missed_at

    def stop(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _read(self, ready: asyncio.Future[None]) -> None:
        store = self._store()
        try:
            place = (await store.feed(None)).position
            counted = await self._read_before(store)
        except StoreError as error:
            ready.set_exception(error)
            ready.exception()  # whoever waits raises it; that nobody waits is no defect
            return
        finally:
            if not ready.done():
                ready.set_result(None)
        while True:
            try:
                news = await store.feed(place, timeout=STEP)
                if news.lost:
                    self._missed_at = await store.now()
                for event in news.events:
                    if event.kind in KINDS and (event.job_id, event.version) not in counted:
                        await self._take(store, event)
                        counted.add((event.job_id, event.version))
                place = news.position
                counted.difference_update((event.job_id, event.version) for event in news.events)
            except StoreError as error:
                log.info("the feed cannot be read; the numbers wait: %s", error)
                if self.on_error is not None:
                    self.on_error()
                await asyncio.sleep(STEP)

    async def _read_before(self, store: Store) -> set[tuple[str, int]]:
        """Count what has ended already. The answer: the ends among them that the feed may tell of once more."""
        begun = await store.now()
        counted: set[tuple[str, int]] = set()
        async for job in walk(store, Query(Select(statuses=ENDS)), READ_AT_FIRST):
            if job is None:
                self._missed_at = begun
                break
            self.tallies.add(job)
            if job.completed_at is not None and int(job.record.get("completed", "0")) >= begun - 1_000_000:
                counted.add((job.job_id, job.version))
        return counted

    async def _take(self, store: Store, event: Event) -> None:
        job = await store.get(event.job_id)
        if job is None:
            return
        if event.kind in ENDS:
            self.tallies.add(job)
        for listener in self.listeners:
            listener(event, job)
