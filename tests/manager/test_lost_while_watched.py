"""A job whose process has died ends while a process waits for it that has no runs of its own, and no other process is left."""

from __future__ import annotations

import asyncio

import pytest

from milepost import AsyncJobManager, JobManager, Settings
from milepost.core.transitions import plan_start
from milepost.manager import watch
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Store, Write
from milepost.stores.sync_bridge import run_sync

pytestmark = pytest.mark.timing
SETTINGS = Settings(lease=1, sweep=0.1)


@pytest.fixture
def dead(every_store: Store, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the id of a job whose process has died, and whose lease ends in 0.3 s."""
    monkeypatch.setattr(watch, "WAIT_STEP", 0.1)
    store = every_store.with_blocking(blocking=True)
    job_id = JobManager(store).enqueue("work", on_lost="fail").job_id
    start = plan_start(new_operation_id(), nonce="n", lease=300_000, worker="w")
    assert run_sync(store.apply([Write(job_id, start)])).outcomes[0].accepted
    return job_id


def test_lost_job_ends_for_those_that_wait(every_store: Store, dead: str) -> None:
    manager = JobManager(every_store.with_blocking(blocking=True), options=SETTINGS)
    assert manager.wait(dead, timeout=60).status == "failed"


def test_lost_job_ends_for_those_that_watch(every_store: Store, dead: str) -> None:
    manager = JobManager(every_store.with_blocking(blocking=True), options=SETTINGS)
    assert [event.kind for event in manager.watch(dead)][-1] == "failed"


def test_lost_job_ends_for_readers_of_its_output(every_store: Store, dead: str) -> None:
    async def read() -> list[str]:
        manager = AsyncJobManager(every_store.with_blocking(blocking=False), options=SETTINGS)
        return [chunk.text async for chunk in manager.follow_output(dead)]

    assert asyncio.run(asyncio.wait_for(read(), 60)) == []
