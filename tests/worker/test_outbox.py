"""The outcomes that a worker writes: the size of a request, and what is sent again after one without a reply."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Barrier

import pytest

from milepost import Jobs, Run
from milepost.core.errors import LeaseHeldError, OutcomeUnknownError, StoreUnavailableError
from milepost.core.transitions import plan_cancel, plan_complete, plan_create, plan_drain_timeout, plan_start
from milepost.manager.validation import submit_fields
from milepost.run.outcome import LateReceipt, RunOutcome
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import MAX_CHARACTERS, ApplyResult, Claim, Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing.fakes import FrozenClock
from milepost.worker import worker_loop
from milepost.worker.store_requests import MAX_WRITES, Outbox
from tests.waiting import PATIENCE

LEASE = 30_000_000


def end_of(name: str, result: str = "1", token: str = "1:t") -> RunOutcome:
    plan = plan_complete(new_operation_id(), token, result, {})
    return RunOutcome([Write(name, plan, answer=False)], LateReceipt(token, "already_finished"))


def outbox_of(*ends: RunOutcome) -> Outbox:
    box = Outbox()
    for end in ends:
        box.add(end)
    return box


def names(writes: Sequence[Write]) -> list[str]:
    return [write.job_id for write in writes]


def running(store: MemoryStore, name: str) -> str:
    """Create a running job; return the token of its lease."""
    start = plan_start(new_operation_id(), nonce=new_nonce(), lease=LEASE, worker="w")
    run_sync(
        store.apply([Write(name, plan_create(submit_fields("t", params=None), new_operation_id())), Write(name, start)])
    )
    job = run_sync(store.get(name))
    assert job is not None
    return job.record["token"]


def test_request_is_bounded_by_number_and_by_size() -> None:
    """Regression: large results that ended together went into one request, which timed out on a slow connection."""
    box = outbox_of(*[end_of(f"s{number}") for number in range(MAX_WRITES + 1)])
    assert len(box.take()) == MAX_WRITES
    large = "x" * (MAX_CHARACTERS // 2 - 1000)
    box = outbox_of(*[end_of(name, large) for name in "abc"])
    assert names(box.take()) == ["a", "b"]
    box = outbox_of(end_of("a", "x" * (MAX_CHARACTERS + 1)), end_of("b"))
    assert names(box.take()) == ["a"], "one that is too large by itself is sent all the same"


def test_unanswered_request_is_repeated_in_halves() -> None:
    box = outbox_of(*[end_of(name, "x" * 1000) for name in "abcd"])
    first = box.take()
    assert names(first) == ["a", "b", "c", "d"]
    box.failed(OutcomeUnknownError("late"))
    half = box.take()
    assert names(half) == ["a", "b"]
    assert [write.change.operation_id for write in half] == [write.change.operation_id for write in first[:2]]
    box.failed(OutcomeUnknownError("late"))
    assert names(box.take()) == ["a"]
    box.failed(StoreUnavailableError("away"))
    assert names(box.take()) == ["a"], "what was not sent says nothing about the size"


def test_outbox_is_empty_only_after_reply() -> None:
    store = MemoryStore()
    box = outbox_of(end_of("a", token=running(store, "a")))
    outcomes = run_sync(store.apply(box.take())).outcomes
    assert box
    box.written(outcomes)
    assert not box
    assert run_sync(store.get("a")).status == "completed"  # type: ignore[union-attr]


def test_waiting_outcomes_keep_leases_and_lost_runs_send_receipts() -> None:
    """Regression: an outcome arrived after its lease at the fifth attempt, so the work was repeated without end."""
    clock = FrozenClock()
    store = MemoryStore(clock=clock)
    tokens = {name: running(store, name) for name in ("live", "lost")}
    box = outbox_of(*[end_of(name, "x" * 100, token) for name, token in tokens.items()])
    box.add(RunOutcome([Write("live", plan_complete(new_operation_id(), "other", None, {}), answer=False)], None))
    run_sync(store.apply([Write("lost", plan_complete(new_operation_id(), tokens["lost"], None, {}))]))
    run_sync(box.renew(store, LEASE))
    assert names(box.take()) == ["live", "lost", "live"], "nothing is asked while nothing has failed"
    box.failed(OutcomeUnknownError("late"))
    clock.advance(20)
    run_sync(box.renew(store, LEASE))
    live = run_sync(store.get("live"))
    assert live is not None
    assert int(live.record["lease"]) == clock() + LEASE
    sent: list[str] = []
    while writes := box.take():
        sent += names(writes)
        box.written(run_sync(store.apply(writes)).outcomes)
    assert sent == ["live", "lost", "live"]


def test_receipt_is_written_after_drain_timeout() -> None:
    """Regression: a cancelled run whose draining lease expired before its outcome was written was never confirmed."""
    clock = FrozenClock()
    store = MemoryStore(clock=clock)
    token = running(store, "a")
    run_sync(store.apply([Write("a", plan_cancel(new_operation_id()))]))
    clock.advance(3600)
    run_sync(store.apply([Write("a", plan_drain_timeout(new_operation_id(), token))]))
    box = outbox_of(end_of("a", "x" * 100, token))
    box.take()
    box.failed(OutcomeUnknownError("late"))
    run_sync(box.renew(store, LEASE))
    run_sync(store.apply(box.take()))
    job = run_sync(store.get("a"))
    assert job is not None
    assert job.receipt is not None
    assert (job.status, job.receipt.confirmed, job.receipt.late_result) == ("cancelled", True, None)


def test_large_results_are_written_over_slow_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: results that ended together were sent as one request without end; their leases expired and jobs ran
    again.
    """
    apply, refused, begun = MemoryStore.apply, 0, 0

    async def narrow(store: MemoryStore, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        nonlocal refused
        if sum(len(value) for write in writes for value in write.change.values if value) > 300_000:
            refused += 1
            raise OutcomeUnknownError("sent, and not answered in time")
        return await apply(store, writes, claim)

    monkeypatch.setattr(MemoryStore, "apply", narrow)
    jobs = Jobs("memory://")

    @jobs.job("large")
    def large(run: Run, all_at_once: bool) -> str:
        nonlocal begun
        begun += 1
        together.wait(PATIENCE)
        return "x" * 100_000

    together = Barrier(12)
    ids = [jobs.enqueue("large", {"all_at_once": True}).job_id for _ in range(12)]
    with jobs.run_workers(concurrency=12):
        for job_id in ids:
            assert jobs.wait(job_id, PATIENCE).status == "completed"
    jobs.close()
    assert refused > 0
    assert begun == 12


def test_requests_are_repeated_after_unexpected_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: after an unexpected error of one request a worker wrote no outcome any more, and did not run the jobs
    that the request had claimed.
    """
    apply, failed = MemoryStore.apply, set[str]()

    async def failing(store: MemoryStore, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        applied = await apply(store, writes, claim)
        kind = "outcome" if writes else "claim" if applied.claimed else ""
        if claim is not None and kind and kind not in failed:
            failed.add(kind)
            raise RuntimeError("a defect after the write")
        return applied

    monkeypatch.setattr(MemoryStore, "apply", failing)
    monkeypatch.setattr(worker_loop, "IDLE_WAIT_SECONDS", 0.01)
    jobs, begun = Jobs("memory://"), list[int]()

    @jobs.job("counted")
    def counted(run: Run, number: int) -> int:
        begun.append(number)
        return number

    ids = [jobs.enqueue("counted", {"number": number}).job_id for number in range(4)]
    with jobs.run_workers(concurrency=2):
        assert [jobs.result(jobs.wait(job_id, PATIENCE)) for job_id in ids] == [0, 1, 2, 3]
    jobs.close()
    assert failed == {"claim", "outcome"}
    assert sorted(begun) == [0, 1, 2, 3]


def test_outcomes_behind_a_locked_job_keep_their_leases() -> None:
    """Regression: a finished job ran again while a long transaction had locked another job of its request."""
    clock = FrozenClock()
    store = MemoryStore(clock=clock)
    box = outbox_of(*[end_of(name, token=running(store, name)) for name in ("locked", "behind")])
    for _ in range(3):
        box.take()
        box.failed(LeaseHeldError("locked"))
        clock.advance(20)
        run_sync(box.renew(store, LEASE))
    for name in ("locked", "behind"):
        job = run_sync(store.get(name))
        assert job is not None
        assert int(job.record["lease"]) == clock() + LEASE
