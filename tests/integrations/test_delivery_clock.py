"""Deliveries whose requests take longer than a lease, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from milepost import AsyncRun, Jobs, Run
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import ApplyResult, Claim, Write
from milepost.worker.message_delivery import adeliver, deliver
from tests.integrations.direct_task_queue import DirectTaskQueue
from tests.run.test_runtime import LEASE, OwnClock, own_manager


@pytest.mark.parametrize("api", ["sync", "async"])
def test_code_begins_with_a_lease_that_has_not_ended(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was suspended while its lease was renewed could begin code that another worker had by then."""
    monkeypatch.setattr(MemoryStore, "shared", True)  # by the threads of this process
    clock = OwnClock()
    manager, task_queue = own_manager(clock), DirectTaskQueue()
    jobs = Jobs(manager, task_queue=task_queue)
    left: list[int] = []

    def note(run: Run) -> None:
        left.append(int(jobs.get_job(run.job_id).record["lease"]) - clock.store())  # type: ignore[union-attr]

    jobs.job("sync")(note)

    @jobs.job("async")
    async def anote(run: AsyncRun) -> None:
        note(run)

    task_queue.down = True
    job_id = jobs.submit(api).job_id
    task_queue.down = False
    store = jobs._async.store.with_blocking(blocking=api == "sync")
    target = store if api == "async" else jobs._async.runtime.heartbeat.store
    apply, renew, delays = target.apply, target.renew, [LEASE + 1, LEASE + 1]

    async def slow_apply(writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        applied = await apply(writes, claim)
        if any(write.change.transition.name == "deliver" for write in writes):
            clock.advance(LEASE * 0.6)
        return applied

    async def slow_renew(leases: Sequence[tuple[str, str]], lease_micros: int) -> list[str]:
        states = await renew(leases, lease_micros)
        clock.advance(delays.pop() if delays else 0)
        return list(states)

    monkeypatch.setattr(target, "apply", slow_apply)
    monkeypatch.setattr(target, "renew", slow_renew)
    if api == "sync":
        deliver(jobs._async, task_queue, job_id, api)
    else:
        asyncio.run(adeliver(jobs._async, task_queue, job_id, api, store=store))
    assert (left, delays) == ([int(LEASE * 1_000_000)], [])
    assert jobs.get_job(job_id).status == "completed"  # type: ignore[union-attr]
