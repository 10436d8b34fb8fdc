"""The outcomes of handlers in the event loop and in threads: result, error, next attempt; on every store."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from milepost import JobCancelled, Jobs, LeaseLost, Retry, Run, Snooze
from milepost.core.errors import JobReleased, JobTimedOut
from tests.worker.job_assertions import Signals, ended, kinds

pytestmark = pytest.mark.timing

# --- ends -------------------------------------------------------------------------------------------------------------


def test_returned_result_completes_job(jobs: Jobs) -> None:
    @jobs.job("sync")
    def sync(run: Run, a: int) -> dict[str, Any]:
        run.progress(0.4, "half way")
        return {"a": a, "empty": {}, "none": None}

    @jobs.job("async")
    async def awaited(run: Run, a: int) -> int:
        await asyncio.sleep(0)
        return 0 * a

    with jobs.run_workers():
        first, second = jobs.submit(sync, a=1), jobs.submit(awaited, a=1)
        job = ended(jobs, first)
        assert (job.status, job.result, job.progress, job.message) == ("completed", {"a": 1, "empty": {}, "none": None}, 1.0, "half way")  # fmt: skip
        assert job.attempt == 1
        assert job.worker is not None
        assert ended(jobs, second).result == 0
    assert kinds(jobs, first) == ["created", "running", "completed"]


@pytest.mark.parametrize("is_async", [False, True])
def test_exception_fails_job_with_crash_report(jobs: Jobs, is_async: bool) -> None:
    def fail(run: Run) -> None:
        with run.stage("Loading"):
            run.log("about to fail")
            raise ValueError("no such page")

    async def afail(run: Run) -> None:
        fail(run)

    jobs.job("fail")(afail if is_async else fail)
    with jobs.run_workers():
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
def test_any_exception_fails_job_but_not_worker(jobs: Jobs, is_async: bool, error: BaseException) -> None:  # fmt: skip
    def fail(run: Run) -> None:
        raise error

    async def afail(run: Run) -> None:
        raise error

    @jobs.job("fine")
    def fine(run: Run) -> str:
        return "fine"

    jobs.job("fail")(afail if is_async else fail)
    with jobs.run_workers():
        job = ended(jobs, jobs.submit("fail"))
        assert (job.status, job.failure and job.failure.kind) == ("failed", "error")
        job.to_json()
        assert ended(jobs, jobs.submit(fine)).result == "fine"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("user_id"), "KeyError: 'user_id'"),
        (
            ExceptionGroup("pages", [ValueError("a"), ExceptionGroup("more", [KeyError("b")])]),
            "pages (2 sub-exceptions): ValueError: a; KeyError: 'b'",
        ),
    ],
    ids=lambda one: type(one).__name__,
)
def test_error_line_says_what_text_of_exception_leaves_out(jobs: Jobs, error: Exception, line: str) -> None:
    @jobs.job("fail")
    def fail(run: Run) -> None:
        raise error

    with jobs.run_workers():
        assert ended(jobs, jobs.submit(fail)).error == line


def test_task_that_cancels_itself_fails_job(jobs: Jobs, signals: Signals) -> None:
    @jobs.job("own")
    async def own(run: Run) -> None:
        signals.calls += 1
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(own))
    assert (job.status, job.error, signals.calls) == ("failed", "CancelledError", 1)


def test_snooze_in_task_group_uses_no_attempt(jobs: Jobs, signals: Signals) -> None:
    async def call(seconds: float) -> None:
        signals.calls += 1
        if signals.calls <= 2:
            raise Snooze(seconds)

    @jobs.job("calls")
    async def calls(run: Run) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(call(0.01))
            group.create_task(call(0.02))
        return "done"

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(calls))
    assert (job.status, job.result, job.attempt, signals.calls) == ("completed", "done", 1, 4)


def test_timeout_in_task_group_is_timeout(jobs: Jobs) -> None:
    @jobs.job("slow", timeout=0.2)
    async def slow(run: Run) -> None:
        def work() -> None:
            while True:
                run.check()
                time.sleep(0.01)

        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(work))

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(slow))
    assert (job.status, job.error) == ("failed", "timeout of 0.2 s exceeded")
    assert job.failure is not None
    assert job.failure.kind == "timeout"


@pytest.mark.parametrize("error", [JobCancelled("mine"), JobReleased("mine"), JobTimedOut("mine"), LeaseLost("mine")], ids=lambda e: type(e).__name__)  # fmt: skip
def test_stop_raised_by_handler_ends_run(jobs: Jobs, signals: Signals, error: BaseException) -> None:  # fmt: skip
    @jobs.job("own")
    def own(run: Run) -> str:
        signals.calls += 1
        if signals.calls == 1:
            raise error
        return "again"

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(own))
    expected = {JobCancelled: "cancelled", JobReleased: "completed", JobTimedOut: "failed", LeaseLost: "cancelled"}
    assert job.status == expected[type(error)]


def test_outdated_parameters_fail_without_retry(jobs: Jobs) -> None:
    @jobs.job("fits", max_attempts=5)
    def fits(run: Run, size: int) -> None: ...

    job = jobs.enqueue("fits", {"size": "large"}, max_attempts=5)
    with jobs.run_workers():
        job = ended(jobs, job)
    assert job.failure is not None
    assert (job.status, job.failure.kind, job.attempt) == ("failed", "bad_parameters", 1)
    assert "size: 'large' is not a whole number" in (job.error or "")


@dataclass
class Positive:
    size: int

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise LookupError("the size must be positive")


def test_parameter_class_error_fails_job(jobs: Jobs) -> None:
    @jobs.job("positive", max_attempts=5)
    def positive(run: Run, given: Positive) -> None: ...

    with jobs.run_workers(concurrency=1):
        job = ended(jobs, jobs.enqueue("positive", {"given": {"size": -1}}, max_attempts=5))
        assert ended(jobs, jobs.enqueue("positive", {"given": {"size": 2}})).status == "completed"
    assert job.failure is not None
    assert (job.status, job.failure.kind, job.attempt) == ("failed", "bad_parameters", 1)
    assert job.error == "the size must be positive"


@pytest.mark.parametrize("text", ['{"a":"b"}', "\x01", "\\", "ä"])
def test_long_crash_report_is_shortened(jobs: Jobs, text: str) -> None:
    @jobs.job("long")
    def long(run: Run) -> None:
        for _ in range(20):
            run.log(text * 5000)
        raise ValueError(text * 70_000)

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(long))
    assert job.failure is not None
    assert (job.status, job.failure.kind, job.failure.type) == ("failed", "error", "ValueError")
    assert job.failure.message.startswith(text)
    assert "in long" in (job.failure.traceback or "")
    assert len(job.failure.last_log) == 20


# --- attempts ---------------------------------------------------------------------------------------------------------


def test_attempts_repeat_until_success_or_budget_end(jobs: Jobs) -> None:
    @jobs.job("flaky", max_attempts=3)
    def flaky(run: Run, good: int) -> list[int]:
        seen = [*(run.last_checkpoint or []), run.attempt]
        run.checkpoint(seen)
        if run.attempt < good:
            raise Retry(0.01, reason=f"not yet at {run.attempt}")
        return seen

    with jobs.run_workers():
        good = ended(jobs, jobs.submit(flaky, good=3))
        bad = ended(jobs, jobs.submit(flaky, good=9))
    assert (good.status, good.result, good.attempt, good.error) == ("completed", [1, 2, 3], 3, None)
    assert (bad.status, bad.attempt, bad.error) == ("failed", 3, "not yet at 3")
    assert kinds(jobs, bad).count("retrying") == 2


@pytest.mark.parametrize(
    "delay", [float("inf"), float("nan"), -1, 1e300, "soon", object, timedelta(milliseconds=1), "1ms", True], ids=repr
)
def test_retry_delay_formats_and_default(jobs: Jobs, delay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)

    @jobs.job("flaky", max_attempts=2)
    def flaky(run: Run) -> int:
        if run.attempt == 1:
            raise Retry(delay)
        return run.attempt

    with jobs.run_workers():
        assert ended(jobs, jobs.submit(flaky)).result == 2


def test_retry_backoff_is_random_and_bounded(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.25)

    @jobs.job("flaky", max_attempts=2)
    def flaky(run: Run) -> None:
        if run.attempt == 1:
            raise ValueError

    with jobs.run_workers():
        job = jobs.submit(flaky)
        ended(jobs, job)
    events = {event.kind: event for event in jobs.events(job.job_id)}
    last = [event for event in jobs.events(job.job_id) if event.kind == "running"][-1]
    assert last.at is not None
    retrying = events["retrying"].at
    assert retrying is not None
    assert 0.25 <= (last.at - retrying).total_seconds() < 60


def test_retry_of_failed_items_gets_only_those(jobs: Jobs) -> None:
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

    with jobs.run_workers():
        first = ended(jobs, jobs.submit(items))
        assert first.item_counts is not None
        assert (first.item_counts.done, first.item_counts.failed) == (4, 2)
        again = ended(jobs, jobs.retry_job(first.job_id, only_failed=True))
    assert handed == [[0, 1, 2, 3, 4, 5], [0, 3]]
    assert (again.status, again.retry_of) == ("completed", first.job_id)
    assert [(stage.done, stage.total) for stage in (*first.stages, *again.stages)] == [(6, 6), (2, 2)]


def test_retry_of_failed_items_in_map_counts_only_those(jobs: Jobs) -> None:
    calls: list[int] = []

    def embed(number: int) -> int:
        calls.append(number)
        if number % 3 == 0 and calls.count(number) == 1:
            raise ValueError
        return number

    @jobs.job("items")
    def items(run: Run) -> None:
        run.map(embed, range(6), key=str, errors="collect", unit="prompt")

    with jobs.run_workers():
        first = ended(jobs, jobs.submit(items))
        again = ended(jobs, jobs.retry_job(first.job_id, only_failed=True))
    assert calls == [0, 1, 2, 3, 4, 5, 0, 3]
    assert [(stage.done, stage.total) for stage in (*first.stages, *again.stages)] == [(6, 6), (2, 2)]


def test_retry_of_failed_items_says_which_no_loop_reached(jobs: Jobs) -> None:
    """With a key of its own for `run.item`, the retry passed over every item, and completed without a word."""
    calls: list[int] = []

    @jobs.job("own-keys")
    def own_keys(run: Run) -> None:
        for number in run.each(range(6)):
            with run.item(f"page {number}"):
                calls.append(number)
                if number % 3 == 0:
                    raise ValueError

    @jobs.job("rows")
    async def rows(run: Run) -> None:
        async for name in run.each(["a", "b"]):
            async for number in run.each(range(3)):
                with run.item(f"{name}{number}"):
                    calls.append(number)
                    if number == 1:
                        raise ValueError

    with jobs.run_workers():
        first, nested = ended(jobs, jobs.submit(own_keys)), ended(jobs, jobs.submit(rows))
        calls.clear()
        retried = [ended(jobs, jobs.retry_job(job.job_id, only_failed=True)) for job in (first, nested)]
    assert not calls
    for job, keys in zip(retried, (("page 0", "page 3"), ("a1", "b1")), strict=True):
        assert job.status == "completed"
        assert job.item_counts is not None
        assert (job.item_counts.failed, job.item_counts.failed_keys) == (2, keys)
        assert job.item_counts.first_errors[0].startswith(
            f"{keys[0]}: no loop of this run reached an item with this key"
        )


def test_retry_of_failed_items_without_loop_meets_them(jobs: Jobs) -> None:
    @jobs.job("plain")
    def plain(run: Run) -> None:
        for number in range(3):
            with run.item(number):
                if number == 1 and run._job.retry_of is None:
                    raise ValueError

    with jobs.run_workers():
        first = ended(jobs, jobs.submit(plain))
        again = ended(jobs, jobs.retry_job(first.job_id, only_failed=True))
    assert again.item_counts is not None
    assert (again.item_counts.done, again.item_counts.failed) == (3, 0)
