"""How a handler of the event loop or of a thread ends: its result, its error, its next attempt; on every store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from milepost import JobCancelled, Jobs, LeaseLost, Retry, Run
from milepost.core.errors import JobReleased, JobTimedOut
from tests.worker.telling import Signals, ended, kinds

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


@dataclass
class Positive:
    size: int

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise LookupError("the size must be positive")


def test_parameters_whose_own_class_refuses_them_in_any_way_fail_their_job(jobs: Jobs) -> None:
    @jobs.job("positive", max_attempts=5)
    def positive(run: Run, given: Positive) -> None: ...

    with jobs.running(concurrency=1):
        job = ended(jobs, jobs.enqueue("positive", {"given": {"size": -1}}, max_attempts=5))
        assert ended(jobs, jobs.enqueue("positive", {"given": {"size": 2}})).status == "completed"
    assert job.failure is not None
    assert (job.status, job.failure.kind, job.attempt) == ("failed", "bad_parameters", 1)
    assert job.error == "the size must be positive"


@pytest.mark.parametrize("text", ['{"a":"b"}', "\x01", "\\", "ä"])
def test_a_failure_of_long_texts_that_are_longer_still_as_json_is_kept_in_short(jobs: Jobs, text: str) -> None:
    @jobs.job("long")
    def long(run: Run) -> None:
        for _ in range(20):
            run.log(text * 5000)
        raise ValueError(text * 70_000)

    with jobs.running():
        job = ended(jobs, jobs.submit(long))
    assert job.failure is not None
    assert (job.status, job.failure.kind, job.failure.type) == ("failed", "error", "ValueError")
    assert job.failure.message.startswith(text)
    assert "in long" in (job.failure.traceback or "")
    assert len(job.failure.last_log) == 20


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


@pytest.mark.parametrize(
    "delay", [float("inf"), float("nan"), -1, 1e300, "soon", object(), timedelta(milliseconds=1), "1ms", True], ids=repr
)
def test_a_retry_may_say_its_delay_in_any_way_and_what_is_none_waits_as_usual(
    jobs: Jobs, delay: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)

    @jobs.job("flaky", max_attempts=2)
    def flaky(run: Run) -> int:
        if run.attempt == 1:
            raise Retry(delay)
        return run.attempt

    with jobs.running():
        assert ended(jobs, jobs.submit(flaky)).result == 2


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
