"""Watching one job while other changes happen between the feed and the record."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from milepost.core import transitions as plans
from milepost.core.errors import JobNotFoundError
from milepost.core.job import Job
from milepost.core.transitions.change import Change
from milepost.manager.sync import JobManager
from milepost.stores.ids import new_operation_id
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import FeedEvents, Write
from milepost.stores.sync_bridge import run_sync

pytestmark = pytest.mark.timing


class Between(MemoryStore):
    """A store with a hook before the next read of a record, and with a feed that may lose events."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: list[Callable[[], object]] = []
        self.loses = False

    async def get(self, job_id: str) -> Job | None:
        if self.meanwhile:
            self.meanwhile.pop(0)()
        return await super().get(job_id)

    async def feed(self, position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> FeedEvents:
        if self.loses and position is not None:
            return (await super().feed(None))._replace(lost=True)
        return await super().feed(position, limit=limit, timeout=timeout)


@pytest.fixture
def store() -> Between:
    return Between()


@pytest.fixture
def manager(store: Between) -> JobManager:
    manager = JobManager(store)
    manager.create_job("mine")
    manager.create_job("other")
    return manager


def do(store: Between, job_id: str, change: Change) -> str:
    """Apply a transition; return the token of the run."""
    outcome = run_sync(store.apply([Write(job_id, change)])).outcomes[0]
    assert outcome.accepted, change.transition.name
    assert outcome.job is not None
    return outcome.job.record.get("token", "")


def test_watch_yields_end_among_events_of_other_jobs(store: Between, manager: JobManager) -> None:
    watching = manager.watch("mine")
    assert next(watching).kind == "snapshot"
    manager.update_job("other", progress=0.5)
    store.meanwhile = [lambda: manager.update_job("mine", "completed")]
    assert [(event.version, event.kind) for event in watching] == [(2, "completed")]


def test_watch_yields_end_after_retry(store: Between, manager: JobManager) -> None:
    manager.enqueue("work", job_id="worked")

    def start() -> str:
        return do(store, "worked", plans.plan_start(new_operation_id(), nonce="n", lease=10**9, worker="w"))

    def again() -> None:
        manager.retry_job("worked")
        do(store, "worked", plans.plan_complete(new_operation_id(), start(), None, {}))

    token = start()
    watching = manager.watch("worked")
    assert next(watching).kind == "snapshot"
    do(store, "worked", plans.plan_fail(new_operation_id(), token, error="no", failure='{"kind":"error"}', report={}))
    store.meanwhile = [again]
    assert [event.kind for event in watching] == ["failed", "retrying", "running", "completed"]


def test_watch_of_recreated_id_ends_with_deleted(store: Between, manager: JobManager) -> None:
    manager.update_job("mine", progress=0.5)
    watching = manager.watch("mine")
    assert next(watching).version == 2
    store.loses = True
    manager.delete_job("mine")
    manager.create_job("mine")
    assert [event.kind for event in watching] == ["deleted"]


def test_watch_after_future_version_restarts_with_snapshot(manager: JobManager) -> None:
    """The id was used again, or the store has lost its latest writes."""
    manager.update_job("mine", progress=0.5)
    watching = manager.watch("mine", after=7)
    assert [(event.version, event.kind) for event in (next(watching),)] == [(2, "snapshot")]
    manager.update_job("mine", "completed")
    assert [(event.version, event.kind) for event in watching] == [(3, "completed")]


def test_watch_restarts_when_store_lost_newest_writes(store: Between, manager: JobManager) -> None:
    watching = manager.watch("mine")
    assert next(watching).version == 1
    before = dict(store._memory.records["mine"])
    for step in range(1, 4):
        manager.update_job("mine", progress=step / 10)
    assert [next(watching).version for _ in range(3)] == [2, 3, 4]
    store._memory.records["mine"] = before
    manager.update_job("mine", progress=0.9)
    assert (next(watching).kind, manager.get_job("mine").version) == ("snapshot", 2)  # type: ignore[union-attr]
    manager.update_job("mine", progress=1.0)
    assert next(watching).version == 3


def test_wait_does_not_return_successor_of_deleted_job(store: Between, manager: JobManager) -> None:
    def again() -> None:
        manager.delete_job("mine")
        manager.create_job("mine")
        manager.update_job("mine", "completed")

    manager.update_job("mine", progress=0.5)
    store.meanwhile = [lambda: manager.update_job("mine", progress=0.6), again]
    with pytest.raises(JobNotFoundError):
        manager.wait("mine", timeout=60)
