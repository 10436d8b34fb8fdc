"""Resuming a watch on an id that was deleted and created again: the new job is another job, whatever its version."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from milepost import AsyncJobManager, InvalidInputError, JobManager
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.settings import Settings
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import FeedEvents

STORES = ["memory", "sqlite", pytest.param("redis", marks=pytest.mark.service("redis-server"))]


def place(kind: str, request: pytest.FixtureRequest) -> tuple[str, Settings]:
    """Return the URL of an empty store and its settings."""
    if kind == "redis":
        namespace = request.getfixturevalue("redis_namespace")
        return request.getfixturevalue("redis_url"), Settings(namespace=namespace)
    return ("memory://" if kind == "memory" else request.getfixturevalue("sqlite_url")), Settings()


@pytest.fixture(params=STORES)
def manager(request: pytest.FixtureRequest) -> Iterator[JobManager]:
    url, options = place(request.param, request)
    manager = JobManager(url, options=options)
    yield manager
    manager.close()


@pytest.fixture(params=STORES)
async def jobs(request: pytest.FixtureRequest) -> AsyncIterator[AsyncJobManager]:
    url, options = place(request.param, request)
    manager = AsyncJobManager(url, options=options)
    yield manager
    await manager.close()


def live(manager: JobManager, job_id: str, messages: int) -> None:
    """Create a job and change it."""
    manager.create_job(job_id)
    manager.update_job(job_id, status="running")
    for number in range(messages):
        manager.update_job(job_id, message=f"{number}")


def versions(events: Iterator[Event]) -> list[tuple[str, int]]:
    return [(event.kind, event.version) for event in events]


def test_resume_on_recreated_id_begins_with_snapshot(manager: JobManager) -> None:
    """Regression: a resumed watch yielded the new job's events as those of the deleted job with the same id."""
    live(manager, "a", 1)
    watching = manager.watch("a", after=2)
    seen = next(watching)
    manager.delete_job("a")
    live(manager, "a", 5)
    manager.update_job("a", status="completed")

    assert versions(manager.watch("a", after=seen.position)) == [("snapshot", 8)]


def test_resume_on_same_job_continues(manager: JobManager) -> None:
    """A position of the existing job yields each event after it, and no snapshot."""
    live(manager, "a", 0)
    first = next(manager.watch("a"))
    assert first.kind == "snapshot"
    manager.update_job("a", status="completed")
    rest = list(manager.watch("a", after=first.position))
    assert versions(iter(rest)) == [("completed", 3)]
    assert versions(manager.watch("a", after=rest[0].position)) == []


def test_resume_by_version_alone_continues(manager: JobManager) -> None:
    """A number is a version of whichever job has the id."""
    live(manager, "a", 0)
    manager.update_job("a", status="completed")
    assert (
        versions(manager.watch("a", after=1))
        == versions(manager.watch("a", after="1"))
        == [("running", 2), ("completed", 3)]
    )


async def test_async_resume_on_recreated_id_begins_with_snapshot(jobs: AsyncJobManager) -> None:
    """Regression: a resumed watch yielded the new job's events as those of the deleted job with the same id."""
    await jobs.create_job("a")
    seen = await anext(jobs.watch("a"))
    await jobs.delete_job("a")
    await jobs.create_job("a")
    await jobs.update_job("a", status="running")
    await jobs.update_job("a", status="completed")

    assert [(e.kind, e.version) async for e in jobs.watch("a", after=seen.position)] == [("snapshot", 3)]


@pytest.mark.parametrize("after", ["", "x", "-1", "1-", "1-A", "1-x y", -1, True, 1.5, "9" * 20, "١"])
def test_watch_after_bad_position_is_rejected(after: Any) -> None:
    """An invalid position is reported before anything is read."""
    with pytest.raises(InvalidInputError, match="after"):
        JobManager("memory://").watch("a", after=after)


class Meanwhile(MemoryStore):
    """A store with a one-time hook: before its feed or stored events are read, or between the two."""

    def __init__(self) -> None:
        super().__init__()
        self.before_feed: Callable[[], object] | None = None
        self.before_events: Callable[[], object] | None = None
        self.after_position: Callable[[], object] | None = None
        self._has_position = False

    async def feed(self, position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> FeedEvents:
        self._has_position = True
        if position is not None and self.before_feed is not None:
            act, self.before_feed = self.before_feed, None
            act()
        return await super().feed(position, limit=limit, timeout=timeout)

    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        if self.before_events is not None:
            act, self.before_events = self.before_events, None
            act()
        return await super().events(job_id, after, limit)

    async def get(self, job_id: str) -> Job | None:
        if self._has_position and self.after_position is not None:
            act, self.after_position = self.after_position, None
            act()
        return await super().get(job_id)


@pytest.fixture
def store() -> Meanwhile:
    return Meanwhile()


def test_watch_ignores_last_events_of_deleted_predecessor(store: Meanwhile) -> None:
    """Regression: a watch of a new job ended with the deletion of the earlier job with its id."""
    manager = JobManager(store)
    live(manager, "a", 3)

    def again() -> None:
        manager.update_job("a", message="last words")
        manager.delete_job("a")
        manager.create_job("a")

    store.after_position = again
    watching = manager.watch("a")
    first = next(watching)
    assert (first.kind, first.version) == ("snapshot", 1)
    store.before_feed = lambda: manager.update_job("a", status="completed")
    assert versions(watching) == [("completed", 2)]


def test_resume_does_not_take_kept_events_of_successor(store: Meanwhile) -> None:
    """Regression: a watch that caught up yielded events of a job that was created meanwhile with the same id."""
    manager = JobManager(store)
    live(manager, "a", 3)
    position = next(manager.watch("a", after=1)).position

    def again() -> None:
        manager.delete_job("a")
        live(manager, "a", 9)

    store.before_events = again
    assert versions(manager.watch("a", after=position)) == [("deleted", 3)]


def test_watch_yields_events_after_clock_was_set_back() -> None:
    """After the clock was set back, events of a job are older than the job."""
    now = [1_700_000_000_000_000]
    store = MemoryStore(clock=lambda: now[0])
    manager = JobManager(store)
    manager.create_job("a")
    now[0] -= 3_600_000_000
    watching = manager.watch("a")
    assert next(watching).kind == "snapshot"
    manager.update_job("a", status="running", progress=0.5)
    assert next(watching).progress == 0.5
    manager.update_job("a", progress=0.6)
    assert next(watching).progress == 0.6
