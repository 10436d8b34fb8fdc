"""Running handlers in the event loop and in threads: ends, retries, time limits, cancels with receipts, limits; on every store."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest

from milepost import Job, JobCancelled, Jobs, LeaseLost, Retry, Run
from milepost.core.errors import JobReleased, JobTimedOut
from milepost.stores.driving import drive
from milepost.stores.protocol import Write
from tests.worker.conftest import MakeJobs

PATIENCE = 30


def ended(jobs: Jobs, job: Job) -> Job:
    """The job with its last word: its end, and for a cancel the receipt."""
    for _ in jobs.watch(job.job_id):
        pass
    found = jobs.get_job(job.job_id)
    assert found is not None
    return found


def kinds(jobs: Jobs, job: Job) -> list[str]:
    """The kinds of a job's kept events."""
    return [event.kind for event in jobs.events(job.job_id)]


class Signals:
    """What a handler and its test tell each other."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.let_go = threading.Event()
        self.calls = 0


@pytest.fixture
def signals() -> Any:
    """Signals; a handler that still waits is let go with the test."""
    made = Signals()
    yield made
    made.let_go.set()


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_handler_returns_and_its_job_is_completed_with_the_result(jobs: Jobs) -> None:
    @jobs.job("sync")
    def sync(run: Run, a: int) -> dict[str, Any]:
        run.progress(0.4, "half way")
        return {"a": a, "empty": {}, "none": None}

    @jobs.job("async")
    async def awaited(run: Run, a: int) -> int:
        await asyncio.sleep(0)
        return 0 * a

    with jobs.running():
        first, second = jobs.submit(sync, a=1), jobs.submit(awaited, a=1)
        job = ended(jobs, first)
        assert (job.status, job.result, job.progress, job.message) == ("completed", {"a": 1, "empty": {}, "none": None}, 1.0, "half way")  # fmt: skip
        assert job.attempt == 1
        assert job.worker is not None
        assert ended(jobs, second).result == 0
    assert kinds(jobs, first) == ["created", "running", "completed"]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_exception_fails_the_job_with_its_dossier(jobs: Jobs, is_async: bool) -> None:
    def fail(run: Run) -> None:
        with run.stage("Loading"):
            run.log("about to fail")
            raise ValueError("no such page")

    async def afail(run: Run) -> None:
        fail(run)

    jobs.job("fail")(afail if is_async else fail)
    with jobs.running():
        job = ended(jobs, jobs.submit("fail"))
    assert (job.status, job.error) == ("failed", "no such page")
    failure = job.failure
    assert failure is not None
    assert (failure.kind, failure.type, failure.attempt, failure.last_log) == (
        "error",
        "ValueError",
        1,
        ("about to fail",),
    )
    assert failure.traceback is not None
    assert "in fail" in failure.traceback
    assert failure.peak_memory is not None


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), BaseException("x"), Unprintable(), ValueError("\ud800" * 9000)],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("is_async", [False, True])
def test_whatever_a_handler_raises_fails_its_job_and_the_worker_lives(jobs: Jobs, is_async: bool, error: BaseException) -> None:  # fmt: skip
    def fail(run: Run) -> None:
        raise error

    async def afail(run: Run) -> None:
        raise error

    @jobs.job("fine")
    def fine(run: Run) -> str:
        return "fine"

    jobs.job("fail")(afail if is_async else fail)
    with jobs.running():
        job = ended(jobs, jobs.submit("fail"))
        assert (job.status, job.failure and job.failure.kind) == ("failed", "error")
        job.to_json()
        assert ended(jobs, jobs.submit(fine)).result == "fine"


@pytest.mark.parametrize("error", [JobCancelled("mine"), JobReleased("mine"), JobTimedOut("mine"), LeaseLost("mine")], ids=lambda e: type(e).__name__)  # fmt: skip
def test_a_stop_that_a_handler_raises_on_its_own_ends_its_run(jobs: Jobs, signals: Signals, error: BaseException) -> None:  # fmt: skip
    @jobs.job("own")
    def own(run: Run) -> str:
        signals.calls += 1
        if signals.calls == 1:
            raise error
        return "again"

    with jobs.running():
        job = ended(jobs, jobs.submit(own))
    expected = {JobCancelled: "cancelled", JobReleased: "completed", JobTimedOut: "failed", LeaseLost: "cancelled"}
    assert job.status == expected[type(error)]


def test_a_result_that_is_not_json_fails_and_is_not_tried_again(jobs: Jobs, signals: Signals) -> None:
    @jobs.job("odd", max_attempts=5)
    def odd(run: Run) -> object:
        signals.calls += 1
        return {"inner": [object()]}

    with jobs.running():
        job = ended(jobs, jobs.submit(odd))
    assert job.failure is not None
    assert (job.status, job.failure.kind, signals.calls) == ("failed", "not_serialisable", 1)
    assert "result.inner[0]" in (job.error or "")


def test_parameters_that_no_longer_fit_fail_and_are_not_tried_again(jobs: Jobs) -> None:
    @jobs.job("fits", max_attempts=5)
    def fits(run: Run, size: int) -> None: ...

    job = jobs.enqueue("fits", {"size": "large"}, max_attempts=5)
    with jobs.running():
        job = ended(jobs, job)
    assert job.failure is not None
    assert (job.status, job.failure.kind, job.attempt) == ("failed", "bad_parameters", 1)
    assert "size: 'large' is not a whole number" in (job.error or "")


# --- attempts ---------------------------------------------------------------------------------------------------------


def test_attempts_are_made_until_one_succeeds_or_the_budget_is_spent(jobs: Jobs) -> None:
    @jobs.job("flaky", max_attempts=3)
    def flaky(run: Run, good: int) -> list[int]:
        seen = [*(run.last_checkpoint or []), run.attempt]
        run.checkpoint(seen)
        if run.attempt < good:
            raise Retry(0.01, reason=f"not yet at {run.attempt}")
        return seen

    with jobs.running():
        good = ended(jobs, jobs.submit(flaky, good=3))
        bad = ended(jobs, jobs.submit(flaky, good=9))
    assert (good.status, good.result, good.attempt, good.error) == ("completed", [1, 2, 3], 3, None)
    assert (bad.status, bad.attempt, bad.error) == ("failed", 3, "not yet at 3")
    assert kinds(jobs, bad).count("retrying") == 2


def test_the_wait_before_a_retry_is_random_and_bounded(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.25)

    @jobs.job("flaky", max_attempts=2)
    def flaky(run: Run) -> None:
        if run.attempt == 1:
            raise ValueError

    with jobs.running():
        job = jobs.submit(flaky)
        ended(jobs, job)
    events = {event.kind: event for event in jobs.events(job.job_id)}
    last = [event for event in jobs.events(job.job_id) if event.kind == "running"][-1]
    assert last.at is not None
    retrying = events["retrying"].at
    assert retrying is not None
    assert 0.25 <= (last.at - retrying).total_seconds() < 5


def test_only_the_failed_items_are_handed_to_a_retry_of_them(jobs: Jobs) -> None:
    handed: list[list[int]] = []

    @jobs.job("items")
    def items(run: Run) -> None:
        seen = []
        for number in run.each(range(6), key=lambda number: number):
            seen.append(number)
            with run.item(number):
                if number % 3 == 0 and not handed:
                    raise ValueError
        handed.append(seen)

    with jobs.running():
        first = ended(jobs, jobs.submit(items))
        assert first.item_counts is not None
        assert (first.item_counts.done, first.item_counts.failed) == (4, 2)
        again = ended(jobs, jobs.retry_job(first.job_id, only_failed=True))
    assert handed == [[0, 1, 2, 3, 4, 5], [0, 3]]
    assert (again.status, again.retry_of) == ("completed", first.job_id)


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
    @jobs.job("slow", timeout=0.2, max_attempts=2)
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

    @jobs.job("deaf", timeout=0.2, max_attempts=2)
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


def test_a_task_is_cancelled_at_its_await(jobs: Jobs, signals: Signals) -> None:
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
    jobs = make_jobs(lease=0.4, sweep=0.1)

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
        time.sleep(1.2)  # three leases: nothing must have run out
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


# --- together ---------------------------------------------------------------------------------------------------------


def test_no_more_of_a_type_run_at_once_than_its_limit_over_all_workers(jobs: Jobs) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    @jobs.job("few", concurrency=2)
    def few(run: Run) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.03)
        with lock:
            now[0] -= 1

    with jobs.running(workers=2):
        ids = jobs.submit_many(few, [{}] * 12)
        for job_id in ids:
            jobs.wait(job_id, PATIENCE)
    assert most[0] == 2


def test_a_paused_type_waits_and_goes_on_at_once(jobs: Jobs) -> None:
    @jobs.job("paused")
    async def paused(run: Run) -> None: ...

    @jobs.job("other")
    async def other(run: Run) -> None: ...

    with jobs.running():
        jobs.set_limit("paused", paused=True)
        assert jobs.job_type("paused").paused
        job = jobs.submit(paused)
        jobs.wait(jobs.submit(other).job_id, PATIENCE)
        found = jobs.get_job(job.job_id)
        assert found is not None
        assert found.status == "pending"
        jobs.set_limit("paused")
        assert jobs.wait(job.job_id, PATIENCE).status == "completed"


def test_each_handler_begins_with_a_context_of_its_own(jobs: Jobs) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")
    seen: list[str] = []

    def dirty(run: Run) -> None:
        seen.append(variable.get())
        variable.set("dirty")

    async def adirty(run: Run) -> None:
        dirty(run)

    jobs.job("dirty")(dirty)
    jobs.job("adirty")(adirty)
    with jobs.running(concurrency=1):
        for _ in range(3):
            jobs.wait(jobs.submit("dirty").job_id, PATIENCE)
            jobs.wait(jobs.submit("adirty").job_id, PATIENCE)
    assert seen == ["clean"] * 6


def test_a_blocked_event_loop_keeps_its_leases_and_is_told_of_in_the_log(make_jobs: MakeJobs) -> None:
    jobs = make_jobs(lease=0.4, sweep=0.1)

    @jobs.job("blocks")
    async def blocks(run: Run) -> str:
        time.sleep(2.0)  # noqa: ASYNC251 - to block is the point
        return f"attempt {run.attempt}"

    with jobs.running():
        job = ended(jobs, jobs.submit(blocks))
    assert (job.status, job.result, job.crashes) == ("completed", "attempt 1", 0)
    text = str([event.data for event in jobs.events(job.job_id) if event.kind == "log"])
    assert "the event loop has been blocked" in text
    assert "in blocks" in text


def test_a_run_of_many_lease_lengths_is_never_run_twice(make_jobs: MakeJobs, signals: Signals) -> None:
    jobs = make_jobs(lease=0.2, sweep=0.05)

    @jobs.job("long")
    def long(run: Run) -> None:
        signals.calls += 1
        time.sleep(3.0)

    with jobs.running(workers=2):
        job = ended(jobs, jobs.submit(long))
    assert (job.status, job.attempt, job.crashes, signals.calls) == ("completed", 1, 0, 1)
