"""Waiting for a change of one job while many others change."""

from __future__ import annotations

from itertools import count

from milepost import JobManager
from milepost.stores.changes import wait_for_change
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import FeedEvents
from milepost.stores.sync_bridge import run_sync


class Busy(MemoryStore):
    """A store in which another job changes at each read of the feed."""

    async def feed(self, position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> FeedEvents:
        JobManager(self).create_job()
        return await super().feed(position, limit=limit, timeout=timeout)


class Lossy(MemoryStore):
    """A store whose feed has lost events."""

    async def feed(self, position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> FeedEvents:
        return (await super().feed(position, limit=limit, timeout=timeout))._replace(lost=True)


def test_wait_on_a_busy_store_ends_when_time_is_over() -> None:
    ticks = count()
    store = Busy()
    position = run_sync(wait_for_change(store, "mine", "0", 3.0, lambda: float(next(ticks))))
    assert next(ticks) == 4
    assert position == run_sync(MemoryStore.feed(store, None)).position


def test_feed_that_has_lost_events_may_have_lost_one_of_the_job() -> None:
    store = Lossy()
    JobManager(store).create_job()
    run_sync(wait_for_change(store, "mine", "0", 60.0))
