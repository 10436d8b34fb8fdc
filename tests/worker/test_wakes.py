"""What a worker with free slots asks its store when it is woken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from milepost import AsyncJobs, Jobs, Run
from milepost.core.errors import StoreUnavailableError
from milepost.settings import Settings
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import ApplyResult, Claim, Write
from milepost.worker.idle import Idle
from tests.waiting import PATIENCE


@pytest.mark.timing
async def test_cancel_wakes_the_heartbeat_and_not_a_claim(
    url: str, redis_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker learned of a cancel by a claim that found no job, one request before that of the heartbeat."""
    jobs = AsyncJobs(url, options=Settings(namespace=redis_namespace, heartbeat=30.0, lease=600.0))
    started, waits, claims, is_cancelled = asyncio.Event(), asyncio.Event(), list[Claim](), False

    @jobs.job
    async def endless(run: Run) -> None:
        started.set()
        await asyncio.Event().wait()

    kind = type(jobs.store)
    apply, wait_for_work = kind.apply, kind.wait_for_work

    async def noted(store: Any, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        if is_cancelled and claim is not None and not writes:
            claims.append(claim)
        return await apply(store, writes, claim)

    async def waited(store: Any, *args: Any) -> Any:
        if args[-1] == PATIENCE:
            waits.set()
        return await wait_for_work(store, *args)

    monkeypatch.setattr(kind, "apply", noted)
    monkeypatch.setattr(kind, "wait_for_work", waited)
    async with asyncio.timeout(2 * PATIENCE), jobs.run_workers():
        job = await jobs.submit("endless")
        await started.wait()
        monkeypatch.setattr(
            "milepost.worker.idle.IDLE_WAIT_SECONDS", PATIENCE
        )  # after a second, it claims at the end of a wait
        await waits.wait()
        is_cancelled = True
        await jobs.cancel_job(job.job_id)
        while True:
            latest = await jobs.get_job(job.job_id)
            assert latest is not None
            if latest.receipt is not None and latest.receipt.confirmed:
                break
            await asyncio.sleep(0.01)
        assert claims == []
        assert latest.receipt.how == "task_cancelled"
        again = await jobs.submit("endless")  # it still claims
        while (found := await jobs.get_job(again.job_id)) is not None and found.status != "running":
            await asyncio.sleep(0.01)
    await jobs.close()


def test_worker_pauses_when_it_may_start_none_of_the_ready_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that the store reported and refused to start made a worker claim a thousand times per second."""
    jobs, claims = Jobs(MemoryStore()), 0
    worker = jobs.worker(exit_when_idle=0.5)
    apply = MemoryStore.apply

    @jobs.job
    def never(run: Run) -> None: ...

    async def counted(store: MemoryStore, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        nonlocal claims
        claims += claim is not None
        return await apply(store, writes, claim)

    async def ready(store: MemoryStore, *args: Any) -> bool:
        return True

    monkeypatch.setattr(MemoryStore, "apply", counted)
    monkeypatch.setattr(MemoryStore, "wait_for_work", ready)
    worker.run()
    assert claims < 20


async def test_worker_claims_again_when_its_wait_fails_during_a_pause() -> None:
    """Regression: a worker without running jobs never claimed again if its wait for work failed while it paused because
    another request had failed, too.
    """
    has_failed = asyncio.Event()

    class Unavailable(MemoryStore):
        async def wait_for_work(self, *args: Any) -> bool:
            await has_failed.wait()
            raise StoreUnavailableError("unavailable")

    idle = Idle(Unavailable(), "w", ("a",), lambda: None, lambda: None)
    idle.wake()  # a job has ended
    assert not await idle.wait_for_wake(free=True)
    has_failed.set()
    await idle.back_off(StoreUnavailableError("its outcome is not written"))
    assert await asyncio.wait_for(idle.wait_for_wake(free=True), PATIENCE)
