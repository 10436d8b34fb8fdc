"""Timeouts and cancels of handlers in the event loop and in threads, with their receipts; on every store."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from milepost import Job, Jobs, LeaseLost, Run
from milepost.core.errors import StoreUnavailableError
from milepost.core.values import WaitingFor
from tests.chaos.calibration import slowness
from tests.waiting import PATIENCE, current, lose_lease, until
from tests.worker.conftest import MakeJobs
from tests.worker.job_assertions import Signals, ended

pytestmark = pytest.mark.timing

# --- time limits ------------------------------------------------------------------------------------------------------


def test_timeout_stops_task_and_fails_job(jobs: Jobs) -> None:
    @jobs.job("slow", timeout=0.2)
    async def slow(run: Run) -> None:
        await asyncio.sleep(60)

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(slow))
    assert job.failure is not None
    assert (job.status, job.failure.kind, job.error) == ("failed", "timeout", "timeout of 0.2 s exceeded")
    assert "await asyncio.sleep(60)" in (job.failure.traceback or "")


def test_timeout_applies_to_each_attempt(jobs: Jobs) -> None:
    @jobs.job("slow", timeout=3.0, max_attempts=2)  # the second attempt has to be in time
    def slow(run: Run) -> str:
        while run.attempt == 1:
            run.check()
            time.sleep(0.01)
        return "in time"

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(slow))
    assert (job.status, job.result, job.attempt) == ("completed", "in time", 2)


def test_thread_running_past_timeout_delays_retry(make_jobs: MakeJobs, signals: Signals) -> None:  # fmt: skip
    jobs = make_jobs(grace=0.2)

    @jobs.job("deaf", timeout=3.0, max_attempts=2)  # the second attempt has to be in time
    def deaf(run: Run) -> str:
        if run.attempt == 1:
            signals.began.set()
            signals.let_go.wait(PATIENCE)
            return "late"
        return "second"

    with jobs.run_workers():
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
        assert (still.status, still.waiting_for) == ("pending", WaitingFor("previous_run_stopping"))
        signals.let_go.set()
        done = ended(jobs, job)
    assert (done.status, done.result) == ("completed", "second")
    assert done.receipt is not None
    assert (done.receipt.how, done.receipt.confirmed, done.receipt.late_result) == ("already_finished", True, "late")


# --- cancels ----------------------------------------------------------------------------------------------------------


def cancelled(jobs: Jobs, job: Job) -> Job:
    """Cancel a job; return it when its receipt is closed."""
    cancelled_job = jobs.cancel_job(job.job_id, "enough", by="ana")
    assert cancelled_job.status == "cancelled"
    found = ended(jobs, job)
    assert found.receipt is not None
    assert (found.receipt.requested_by, found.receipt.reason) == ("ana", "enough")
    return found


def test_cancelled_pending_job_never_starts(jobs: Jobs, signals: Signals) -> None:
    @jobs.job("never")
    def never(run: Run) -> None:
        signals.calls += 1

    job = jobs.enqueue("never")
    found = cancelled(jobs, job)
    assert found.receipt is not None
    assert (found.receipt.how, found.receipt.confirmed) == ("never_started", True)
    with jobs.run_workers():
        jobs.wait(jobs.submit(never).job_id, PATIENCE)
    assert signals.calls == 1


def is_cancelled_at_its_await(jobs: Jobs, signals: Signals) -> None:
    """Cancel a task that waits, and check how it has stopped."""

    @jobs.job("waits")
    async def waits(run: Run) -> None:
        signals.began.set()
        await asyncio.sleep(60)

    with jobs.run_workers():
        job = jobs.submit(waits)
        assert signals.began.wait(PATIENCE)
        found = cancelled(jobs, job)
    assert found.receipt is not None
    assert (found.receipt.how, found.receipt.confirmed) == ("task_cancelled", True)


def test_cancel_stops_task_at_await(jobs: Jobs, signals: Signals) -> None:
    is_cancelled_at_its_await(jobs, signals)


def test_cancel_is_delivered_at_next_heartbeat_after_error(
    jobs: Jobs, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = jobs.runtime.heartbeat.store
    read, failures = store.get, iter([StoreUnavailableError("away for a moment")])

    async def get(job_id: str) -> Job | None:
        if threading.current_thread().name == "milepost-heartbeat":
            for failure in failures:
                raise failure
        return await read(job_id)

    monkeypatch.setattr(store, "get", get)
    is_cancelled_at_its_await(jobs, signals)
    assert next(failures, None) is None


@pytest.mark.parametrize("is_async", [False, True])
def test_code_with_cancel_points_stops(jobs: Jobs, signals: Signals, is_async: bool) -> None:
    def loops(run: Run) -> None:
        signals.began.set()
        for _ in run.each(iter(int, 1)):
            time.sleep(0.005)

    async def aloops(run: Run) -> None:
        await asyncio.to_thread(loops, run)

    jobs.job("loops")(aloops if is_async else loops)
    with jobs.run_workers():
        job = jobs.submit("loops")
        assert signals.began.wait(PATIENCE)
        found = cancelled(jobs, job)
    assert found.receipt is not None
    assert (found.receipt.how, found.receipt.confirmed) == ("task_cancelled" if is_async else "cooperative", True)


def test_late_result_is_kept_in_receipt_only(jobs: Jobs, signals: Signals) -> None:
    @jobs.job("late")
    def late(run: Run) -> str:
        signals.began.set()
        signals.let_go.wait(PATIENCE)
        return "too late"

    with jobs.run_workers():
        job = jobs.submit(late)
        assert signals.began.wait(PATIENCE)
        jobs.cancel_job(job.job_id)
        signals.let_go.set()
        found = ended(jobs, job)
    assert found.receipt is not None
    assert (found.status, found.result) == ("cancelled", None)
    assert (found.receipt.how, found.receipt.late_result) == ("already_finished", "too late")


def test_task_swallowing_cancel_is_not_confirmed_early(jobs: Jobs, signals: Signals) -> None:
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

    with jobs.run_workers():
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
    assert (found.receipt.how, found.receipt.late_result) == ("already_finished", "in my own time")


def test_draining_lease_of_thread_is_kept_until_return(make_jobs: MakeJobs, signals: Signals) -> None:  # fmt: skip
    lease = 2.0 * slowness()  # one that is shorter than a pause of the machine is lost
    jobs = make_jobs(lease=lease, sweep=0.1)

    @jobs.job("deaf")
    def deaf(run: Run) -> str:
        signals.calls += 1
        signals.began.set()
        if signals.calls == 1:
            signals.let_go.wait(PATIENCE)
        return f"call {signals.calls}"

    with jobs.run_workers():
        job = jobs.submit(deaf)
        assert signals.began.wait(PATIENCE)
        jobs.cancel_job(job.job_id)
        jobs.retry_job(job.job_id)
        time.sleep(1.5 * lease)  # nothing must have run out
        waiting = jobs.get_job(job.job_id)
        assert waiting is not None
        assert (waiting.status, waiting.waiting_for) == ("pending", WaitingFor("previous_run_stopping"))
        assert signals.calls == 1
        signals.let_go.set()
        found = ended(jobs, job)
    assert (found.status, found.result) == ("completed", "call 2")


def test_id_of_deleted_job_is_free_after_code_stopped(jobs: Jobs, signals: Signals) -> None:
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

    with jobs.run_workers():
        jobs.submit(loops.options(job_id="mine"))
        assert signals.began.wait(PATIENCE)
        jobs.delete_job("mine")
        assert jobs.get_job("mine") is None
        second = jobs.submit(loops.options(job_id="mine"))
        time.sleep(0.3)
        assert signals.calls == 1
        signals.let_go.set()
        assert ended(jobs, second).result == "second"


def test_lost_lease_stops_code_without_writes(jobs: Jobs, signals: Signals) -> None:
    stops: list[BaseException] = []

    @jobs.job("loses")
    def loses(run: Run) -> None:
        signals.began.set()
        try:
            while True:
                run.progress(0.9, "still here")
                time.sleep(0.005)
        except BaseException as stop:
            stops.append(stop)
            signals.let_go.set()
            raise

    with jobs.run_workers():
        job = jobs.submit(loses.options(on_lost="fail"))
        assert signals.began.wait(PATIENCE)
        found = jobs.get_job(job.job_id)
        assert found is not None
        lose_lease(jobs.store, job.job_id, found.record["token"])
        assert signals.let_go.wait(PATIENCE)
    assert isinstance(stops[0], LeaseLost)
    after = jobs.get_job(job.job_id)
    assert after is not None
    assert after.status == "failed"
    assert "gone" in (after.error or "")


# --- checkpoints during an outage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_handler_checkpoint_waits_during_outage(jobs: Jobs, is_async: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a checkpoint that the store had not written looked acknowledged to the handler, so work was lost."""
    store = jobs.store if is_async else jobs.runtime.heartbeat.store
    apply, failures = store.apply, iter([StoreUnavailableError("away"), StoreUnavailableError("away")])

    async def away(writes: Any, *more: Any) -> Any:
        if any(write.change.transition.name == "checkpoint" for write in writes):
            for failure in failures:
                raise failure
        return await apply(writes, *more)

    @jobs.job("records")
    def records(run: Run) -> str:
        run.checkpoint({"page": 1})
        found = jobs.get_job(run.job_id)
        assert found is not None
        return found.record["checkpoint"]

    @jobs.job("arecords")
    async def arecords(run: Run) -> str:
        await run.acheckpoint({"page": 1})
        found = jobs.get_job(run.job_id)
        assert found is not None
        return found.record["checkpoint"]

    with jobs.run_workers() as running:
        loop = running.workers[0]._loop
        assert loop is not None
        store = loop.store if is_async else store
        apply = store.apply
        monkeypatch.setattr(store, "apply", away)
        job = ended(jobs, jobs.submit(arecords if is_async else records))
    assert (job.status, job.result) == ("completed", '{"page":1}')
    assert next(failures, None) is None


def test_receipt_shows_that_code_is_still_running(make_jobs: MakeJobs, signals: Signals) -> None:
    """Regression: the receipt of a thread without cancellation points did not say that it still ran."""
    jobs = make_jobs(grace=0.2)

    @jobs.job("deaf")
    def deaf(run: Run) -> None:
        signals.began.set()
        signals.let_go.wait(PATIENCE)

    with jobs.run_workers():
        job = jobs.submit(deaf)
        assert signals.began.wait(PATIENCE)
        jobs.cancel_job(job.job_id)
        until(lambda: (receipt := current(jobs, job).receipt) and receipt.how)
        receipt = current(jobs, job).receipt
        assert receipt is not None
        assert (receipt.how, receipt.confirmed, receipt.stopped_at) == ("still_running", None, None)
        lines = [
            line["text"] for event in jobs.events(job.job_id) if event.kind == "log" for line in event.data["lines"]
        ]
        assert lines == ["still running after the grace period"]
        signals.let_go.set()
        last = ended(jobs, job).receipt
    assert last is not None
    assert (last.how, last.confirmed) == ("already_finished", True)


def test_receipt_of_prompt_stop_never_shows_running(make_jobs: MakeJobs, signals: Signals) -> None:
    jobs = make_jobs(grace=60.0)  # a busy machine may need longer than that of the other tests
    is_cancelled_at_its_await(jobs, signals)
    [job] = jobs.list_jobs()
    assert not [event for event in jobs.events(job.job_id) if event.kind == "log"]
