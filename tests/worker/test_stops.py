"""Time limits and cancels of handlers in the event loop and in threads, with their receipts; on every store."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from milepost import Job, Jobs, LeaseLost, Run
from milepost.core.errors import StoreUnavailable
from milepost.stores.driving import drive
from milepost.stores.protocol import Write
from milepost.tracking.pulse import pulse_of
from tests.waiting import PATIENCE
from tests.worker.conftest import MakeJobs
from tests.worker.telling import Signals, ended

LEASE = 0.8
"""Seconds; a single beat of the pulse must never take so long, on a busy machine with a slow disk either."""

# --- time limits ------------------------------------------------------------------------------------------------------


def test_a_time_limit_stops_a_task_and_fails_it_as_timeout(jobs: Jobs) -> None:
    @jobs.job("slow", timeout=0.2)
    async def slow(run: Run) -> None:
        await asyncio.sleep(60)

    with jobs.running():
        job = ended(jobs, jobs.submit(slow))
    assert job.failure is not None
    assert (job.status, job.failure.kind, job.error) == ("failed", "timeout", "the time limit of 0.2 s has passed")
    assert "await asyncio.sleep(60)" in (job.failure.traceback or "")


def test_a_time_limit_of_one_attempt_leaves_the_next_one_its_own(jobs: Jobs) -> None:
    @jobs.job("slow", timeout=1.0, max_attempts=2)
    def slow(run: Run) -> str:
        while run.attempt == 1:
            run.check()
            time.sleep(0.01)
        return "in time"

    with jobs.running():
        job = ended(jobs, jobs.submit(slow))
    assert (job.status, job.result, job.attempt) == ("completed", "in time", 2)


def test_a_thread_that_goes_on_past_its_time_limit_is_reported_and_its_retry_waits(make_jobs: MakeJobs, signals: Signals) -> None:  # fmt: skip
    jobs = make_jobs(grace=0.2)

    @jobs.job("deaf", timeout=1.0, max_attempts=2)
    def deaf(run: Run) -> str:
        if run.attempt == 1:
            signals.began.set()
            signals.let_go.wait(PATIENCE)
            return "late"
        return "second"

    with jobs.running():
        job = jobs.submit(deaf)
        for event in jobs.watch(job.job_id):
            if event.kind == "retrying":
                break
        waiting = jobs.get_job(job.job_id)
        assert waiting is not None
        assert waiting.failure is not None
        assert waiting.receipt is not None
        assert (waiting.status, waiting.failure.kind) == ("pending", "timeout")
        assert "signals.let_go.wait" in (waiting.failure.traceback or "")  # where it hangs
        assert (waiting.receipt.reason, waiting.receipt.confirmed) == ("timeout", None)
        time.sleep(1.0)  # past the retry's own delay, it must still wait for the thread
        still = jobs.get_job(job.job_id)
        assert still is not None
        assert (still.status, still.waiting_for) == ("pending", "the previous run to stop")
        signals.let_go.set()
        done = ended(jobs, job)
    assert (done.status, done.result) == ("completed", "second")
    assert done.receipt is not None
    assert (done.receipt.how, done.receipt.confirmed, done.receipt.late_result) == ("already finished", True, "late")


# --- cancels ----------------------------------------------------------------------------------------------------------


def cancelled(jobs: Jobs, job: Job) -> Job:
    """Cancel a job; it as it is when its receipt is closed."""
    told = jobs.cancel_job(job.job_id, "enough", by="ana")
    assert told.status == "cancelled"
    found = ended(jobs, job)
    assert found.receipt is not None
    assert (found.receipt.requested_by, found.receipt.reason) == ("ana", "enough")
    return found


def test_a_pending_job_never_starts(jobs: Jobs, signals: Signals) -> None:
    @jobs.job("never")
    def never(run: Run) -> None:
        signals.calls += 1

    job = jobs.enqueue("never")
    found = cancelled(jobs, job)
    assert found.receipt is not None
    assert (found.receipt.how, found.receipt.confirmed) == ("never started", True)
    with jobs.running():
        jobs.wait(jobs.submit(never).job_id, PATIENCE)
    assert signals.calls == 1


def is_cancelled_at_its_await(jobs: Jobs, signals: Signals) -> None:
    """Run a task that waits, cancel it, and see how it has stopped."""

    @jobs.job("waits")
    async def waits(run: Run) -> None:
        signals.began.set()
        await asyncio.sleep(60)

    with jobs.running():
        job = jobs.submit(waits)
        assert signals.began.wait(PATIENCE)
        found = cancelled(jobs, job)
    assert found.receipt is not None
    assert (found.receipt.how, found.receipt.confirmed) == ("task cancelled", True)


def test_a_task_is_cancelled_at_its_await(jobs: Jobs, signals: Signals) -> None:
    is_cancelled_at_its_await(jobs, signals)


def test_a_cancel_whose_reason_cannot_be_read_at_once_is_heard_at_the_next_beat(
    jobs: Jobs, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = pulse_of(jobs.store, jobs.settings, jobs.ttl).store
    read, failures = store.get, iter([StoreUnavailable("away for a moment")])

    async def get(job_id: str) -> Job | None:
        if threading.current_thread().name == "milepost-pulse":
            for failure in failures:
                raise failure
        return await read(job_id)

    monkeypatch.setattr(store, "get", get)
    is_cancelled_at_its_await(jobs, signals)
    assert next(failures, None) is None


@pytest.mark.parametrize("is_async", [False, True])
def test_code_that_looks_stops_on_its_own(jobs: Jobs, signals: Signals, is_async: bool) -> None:
    def loops(run: Run) -> None:
        signals.began.set()
        for _ in run.each(iter(int, 1)):
            time.sleep(0.005)

    async def aloops(run: Run) -> None:
        await asyncio.to_thread(loops, run)

    jobs.job("loops")(aloops if is_async else loops)
    with jobs.running():
        job = jobs.submit("loops")
        assert signals.began.wait(PATIENCE)
        found = cancelled(jobs, job)
    assert found.receipt is not None
    assert (found.receipt.how, found.receipt.confirmed) == ("task cancelled" if is_async else "cooperative", True)


def test_a_result_that_comes_after_the_cancel_is_kept_in_the_receipt_only(jobs: Jobs, signals: Signals) -> None:
    @jobs.job("late")
    def late(run: Run) -> str:
        signals.began.set()
        signals.let_go.wait(PATIENCE)
        return "too late"

    with jobs.running():
        job = jobs.submit(late)
        assert signals.began.wait(PATIENCE)
        jobs.cancel_job(job.job_id)
        signals.let_go.set()
        found = ended(jobs, job)
    assert found.receipt is not None
    assert (found.status, found.result) == ("cancelled", None)
    assert (found.receipt.how, found.receipt.late_result) == ("already finished", "too late")


def test_a_task_that_swallows_its_cancel_is_not_called_stopped_before_it_is(jobs: Jobs, signals: Signals) -> None:
    @jobs.job("stubborn")
    async def stubborn(run: Run) -> str:
        signals.began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            signals.calls += 1
        while not signals.let_go.is_set():
            await asyncio.sleep(0.01)
        return "in my own time"

    with jobs.running():
        job = jobs.submit(stubborn)
        assert signals.began.wait(PATIENCE)
        jobs.cancel_job(job.job_id)
        while not signals.calls:
            time.sleep(0.01)
        found = jobs.get_job(job.job_id)
        assert found is not None
        assert found.receipt is not None
        assert found.receipt.confirmed is None
        signals.let_go.set()
        found = ended(jobs, job)
    assert found.receipt is not None
    assert (found.receipt.how, found.receipt.late_result) == ("already finished", "in my own time")


def test_the_stopping_lease_of_a_thread_that_never_looks_is_kept_until_it_returns(make_jobs: MakeJobs, signals: Signals) -> None:  # fmt: skip
    jobs = make_jobs(lease=LEASE, sweep=0.1)

    @jobs.job("deaf")
    def deaf(run: Run) -> str:
        signals.calls += 1
        signals.began.set()
        if signals.calls == 1:
            signals.let_go.wait(PATIENCE)
        return f"call {signals.calls}"

    with jobs.running():
        job = jobs.submit(deaf)
        assert signals.began.wait(PATIENCE)
        jobs.cancel_job(job.job_id)
        jobs.retry_job(job.job_id)
        time.sleep(2.5 * LEASE)  # nothing must have run out
        waiting = jobs.get_job(job.job_id)
        assert waiting is not None
        assert (waiting.status, waiting.waiting_for) == ("pending", "the previous run to stop")
        assert signals.calls == 1
        signals.let_go.set()
        found = ended(jobs, job)
    assert (found.status, found.result) == ("completed", "call 2")


def test_a_deleted_job_stops_and_its_id_is_free_when_its_code_has_stopped(jobs: Jobs, signals: Signals) -> None:
    @jobs.job("loops")
    def loops(run: Run) -> str:
        signals.calls += 1
        signals.began.set()
        if signals.calls == 1:
            while not run.cancelled:
                time.sleep(0.005)
            signals.let_go.wait(PATIENCE)
            run.check()
        return "second"

    with jobs.running():
        jobs.submit(loops.options(job_id="mine"))
        assert signals.began.wait(PATIENCE)
        jobs.delete_job("mine")
        assert jobs.get_job("mine") is None
        second = jobs.submit(loops.options(job_id="mine"))
        time.sleep(0.3)
        assert signals.calls == 1
        signals.let_go.set()
        assert ended(jobs, second).result == "second"


def test_a_lost_lease_stops_the_code_and_it_writes_nothing_more(jobs: Jobs, signals: Signals) -> None:
    heard: list[BaseException] = []

    @jobs.job("loses")
    def loses(run: Run) -> None:
        signals.began.set()
        try:
            while True:
                run.progress(0.9, "still here")
                time.sleep(0.005)
        except BaseException as stop:
            heard.append(stop)
            signals.let_go.set()
            raise

    from milepost.core.lifecycle import plan_lost
    from milepost.stores.ids import new_op

    with jobs.running():
        job = jobs.submit(loses.options(on_lost="fail"))
        assert signals.began.wait(PATIENCE)
        found = jobs.get_job(job.job_id)
        assert found is not None
        # Another process is made to believe that the lease has run out.
        drive(jobs.store.renew([(job.job_id, found.record["token"])], 0))
        plan = plan_lost(new_op(), error="gone", failure="{}", crash_loop="{}", crashes_left=2)
        assert drive(jobs.store.apply([Write(job.job_id, plan)])).outcomes[0].accepted
        assert signals.let_go.wait(PATIENCE)
    assert isinstance(heard[0], LeaseLost)
    after = jobs.get_job(job.job_id)
    assert after is not None
    assert (after.status, after.error) == ("failed", "gone")
