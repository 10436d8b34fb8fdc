"""Usage and budgets: amounts are summed over attempts on every store, and a job that has spent its budget fails."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from milepost import BudgetExceededError, InvalidInputError, Job, JobCancelled, JobManager, Jobs, LeaseLost, Run
from milepost.stores.sync_bridge import run_sync
from milepost.testing import fake_run
from milepost.worker.handlers import Handlers
from tests.waiting import PATIENCE, current, lose_lease, until


def spend(run: Run, *, fail: bool) -> None:
    """Spend in two steps whose sum is no exact binary fraction."""
    run.add_usage(tokens=812, usd=0.1)
    run.add_usage(usd=0.2)
    if fail:
        raise RuntimeError


def test_usage_is_sum_of_all_attempts(manager: JobManager) -> None:
    for fail in (True, False):
        try:
            with manager.track("spend", unique_key="k") as run:
                spend(run, fail=fail)
        except RuntimeError:
            assert current(manager, run).usage == {"tokens": 812, "usd": 0.3}
    job = current(manager, run)
    assert (job.status, job.usage) == ("completed", {"tokens": 1624, "usd": 0.6})
    assert job.record["usage"] == '{"tokens":1624000000,"usd":600000}'


def test_amounts_below_a_millionth_add_up(manager: JobManager) -> None:
    with manager.track("spend") as run:
        for _ in range(100):
            run.add_usage(tokens=1, usd=0.000_000_15, eur=0.000_001_5)
    assert current(manager, run).usage == {"tokens": 100, "usd": 0.000_015, "eur": 0.000_15}


def test_budget_ends_job_that_spends_less_than_millionths() -> None:
    jobs = Jobs("memory://")

    @jobs.job("spend")
    def spend_tokens(run: Run) -> None:
        for _ in range(1000):
            run.add_usage(usd=0.000_000_15)

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(spend_tokens.options(budget={"usd": 0.000_1})), PATIENCE)
    assert (job.status, job.usage) == ("failed", {"usd": 0.000_101})


def test_heartbeat_writes_usage_and_lost_run_adds_nothing(manager: JobManager) -> None:
    def spend_after_loss(run: Run) -> None:
        run.add_usage(tokens=1)
        until(lambda: current(manager, run).usage == {"tokens": 1})
        lose_lease(manager.store, run.job_id, run.token)
        until(lambda: run.cancelled)
        run._counted().add({"tokens": 100_000_000})

        run.check()

    with pytest.raises(LeaseLost), manager.track("spend") as run:
        spend_after_loss(run)
    assert current(manager, run).usage == {"tokens": 1}


def test_repeated_report_counts_nothing_twice(manager: JobManager) -> None:
    with manager.track("spend") as run:
        run.add_usage(tokens=5)
        for _ in range(3):
            run_sync(manager.store.heartbeat([], [(run.job_id, run.token)], None))
            manager.runtime.heartbeat.beat()
    assert current(manager, run).usage == {"tokens": 5}


@pytest.fixture
def jobs(manager: JobManager) -> Jobs:
    return Jobs(manager)


def test_exceeded_budget_fails_job_without_retry(jobs: Jobs) -> None:
    @jobs.job("spend", max_attempts=3)
    def spend_all(run: Run, calls: int) -> int:
        for _ in range(calls):
            run.add_usage(usd=0.4)
        return calls

    with jobs.run_workers():
        within = jobs.wait(jobs.submit(spend_all.options(budget={"usd": 0.8}), calls=2), PATIENCE)
        over = jobs.wait(jobs.submit(spend_all.options(budget={"usd": 1, "tokens": 5}), calls=9), PATIENCE)
        again = jobs.wait(jobs.retry_job(over.job_id), PATIENCE)
    assert (within.status, within.usage) == ("completed", {"usd": 0.8})
    assert (over.status, over.attempt, over.usage) == ("failed", 1, {"usd": 1.2})
    assert over.error is not None
    assert "budget: 1.2 of 1 usd spent; submit a job with a larger budget" in over.error
    assert again.error is not None
    assert "1.2 of 1 usd spent by earlier runs" in again.error
    assert again.usage == {"usd": 1.2}


@pytest.mark.parametrize("has_child", [False, True])
def test_budget_that_is_spent_exactly_lets_an_attempt_continue(jobs: Jobs, has_child: bool) -> None:
    """Regression: a job that needed its whole budget failed if it was interrupted after its last call."""

    def pay(run: Run, page: int) -> int:
        run.add_usage(calls=1)
        return page

    @jobs.job("pages", max_attempts=2, backoff=lambda attempt: 0.01)
    def pages(run: Run) -> int:
        kept = [run.step(f"page {page}", pay, run, page) for page in range(3)]
        if run.attempt == 1:
            raise ConnectionError
        return len(kept)

    @jobs.job("book")
    def book(run: Run) -> Any:
        run.submit_child("pages", pages)
        return run.join().result("pages")

    with jobs.run_workers():
        submitted = (book if has_child else pages).options(budget={"calls": 3})
        job = jobs.wait(jobs.submit(submitted), PATIENCE)
    assert (job.status, job.error, job.result) == ("completed", None, 3)


@pytest.mark.parametrize(
    ("amount", "limit", "text"),
    [
        ({"usd": 0.000_006}, {"usd": 0.000_005}, "0.000006 of 0.000005 usd spent"),
        ({"tokens": 1_000_812}, {"tokens": 1_000_000}, "1,000,812 of 1,000,000 tokens spent"),
        ({"usd": 1234.567_891}, {"usd": 1234.5}, "1,234.567891 of 1,234.5 usd spent"),
    ],
)
def test_error_of_exceeded_budget_has_all_digits(
    jobs: Jobs, amount: dict[str, float], limit: dict[str, float], text: str
) -> None:
    """Regression: a million tokens were "1.00081e+06 of 1e+06 tokens spent"."""

    @jobs.job("spend")
    def spend_amount(run: Run) -> None:
        run.add_usage(**amount)

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(spend_amount.options(budget=limit)), PATIENCE)
    assert f"budget: {text};" in (job.error or "")


HANDLERS = Handlers()


def spend_until_stopped(run: Run, path: str) -> None:
    """Count each call in a file too."""
    with open(path, "ab", buffering=0) as calls:
        while True:
            calls.write(b"x")
            run.add_usage(calls=1)
            time.sleep(0.005)


HANDLERS.job("thread", isolation="thread")(spend_until_stopped)


@HANDLERS.job("process", isolation="process")
def spend_in_process(run: Run, path: str) -> None:
    """Do the same in a child process."""
    spend_until_stopped(run, path)


def pay(run: Run) -> str:
    """Spend, and return what was paid for."""
    run.add_usage(calls=1)
    return "answer"


@HANDLERS.job("killed", isolation="process")
def pay_and_be_killed(run: Run) -> None:
    """Be killed once the store has the answer."""
    run.step("answer", pay, run)
    os.kill(os.getpid(), signal.SIGKILL)


def test_kept_step_is_written_with_its_usage(manager: JobManager) -> None:
    with manager.track("spend") as run:
        run.step("answer", pay, run)
        assert current(manager, run).usage == {"calls": 1}


def test_killed_process_keeps_usage_of_kept_step(manager: JobManager) -> None:
    jobs = Jobs(manager, handlers=HANDLERS)
    with jobs.run_workers():
        job = jobs.wait(jobs.submit("killed"), timeout=60)
    assert (job.status, job.usage) == ("failed", {"calls": 1})


@pytest.mark.parametrize("name", ["thread", "process"])
def test_cancelled_run_loses_no_usage(manager: JobManager, tmp_path: Path, name: str) -> None:
    """The last call was paid for, as were those between the cancel and the end of the code."""
    jobs, calls = Jobs(manager, handlers=HANDLERS), tmp_path / "calls"

    def stopped_job() -> Job | None:
        job = jobs.get_job(submitted.job_id)
        return job if job is not None and job.receipt is not None and job.receipt.confirmed else None

    with jobs.run_workers():
        submitted = jobs.submit(name, {"path": str(calls)})
        until(lambda: calls.exists() and calls.stat().st_size > 3)
        jobs.cancel_job(submitted.job_id)
        job = until(stopped_job)
    assert job.usage == {"calls": calls.stat().st_size}


@pytest.mark.parametrize("continues", [lambda run: 7, lambda run: run.output("x"), lambda run: 1 / 0])
def test_caught_budget_error_still_fails_job(jobs: Jobs, continues: Callable[[Run], object]) -> None:
    @jobs.job("spend", max_attempts=3, isolation="thread")
    def spend_on(run: Run) -> object:
        for _ in range(5):
            with contextlib.suppress(Exception):
                run.add_usage(usd=1)
        with pytest.raises(BudgetExceededError):
            run.check()
        return continues(run)

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(spend_on.options(budget={"usd": 1})), PATIENCE)
    assert (job.status, job.attempt, job.usage) == ("failed", 1, {"usd": 5})
    assert job.error is not None
    assert "budget: 2 of 1 usd spent" in job.error


async def aspend(run: Run) -> None:
    """Spend in an event loop."""
    run.add_usage(usd=2)


def test_exceeded_budget_fails_async_job(jobs: Jobs) -> None:
    handler = jobs.job("aspend")(aspend)
    with jobs.run_workers():
        job = jobs.wait(jobs.submit(handler.options(budget={"usd": 1})), PATIENCE)
    assert (job.status, job.usage) == ("failed", {"usd": 2})


@pytest.mark.parametrize(
    "amounts",
    [
        {},
        {"usd": -1},
        {"usd": math.nan},
        {"usd": True},
        {"usd": "1"},
        {"no name": 1},
        {"u" * 41: 1},
        {"usd": 1e13},
        {"usd": 10**5000},
    ],
)
def test_wrong_amounts_are_refused(amounts: dict[str, Any]) -> None:
    run = fake_run()
    with pytest.raises(InvalidInputError, match="add_usage"):
        run.add_usage(**amounts)
    with pytest.raises(InvalidInputError, match="budget"):
        Jobs("memory://").enqueue("x", budget=amounts)


def test_too_many_names_are_refused() -> None:
    run = fake_run()
    run.add_usage(**{f"n{number}": 1 for number in range(16)})
    with pytest.raises(InvalidInputError, match="17 names, the limit of a job is 16"):
        run.add_usage(another=1)


def test_usage_is_cancellation_point_that_counts_first() -> None:
    run = fake_run()
    run.cancel()
    with pytest.raises(JobCancelled):
        run.add_usage(usd=1)
    assert run._report()["usage"] == '{"usd":1000000}'


def test_budget_of_fake_run_is_that_of_its_record() -> None:
    run = fake_run()
    run._job = Job.stored(
        "fake", {"type": "test", "status": "running", "created": "0", "usage_budget": '{"usd":500000}'}
    )
    run.add_usage(usd=0.5)
    with pytest.raises(BudgetExceededError, match=r"0.6 of 0.5 usd spent"):
        run.add_usage(usd=0.1)


def test_sum_of_a_job_is_limited(manager: JobManager) -> None:
    with manager.track("spend") as run:
        for _ in range(9):
            run.add_usage(tokens=1e12)
        with pytest.raises(InvalidInputError, match="the sum of a job is limited to 9e\\+12"):
            run.add_usage(tokens=1)
    assert current(manager, run).usage == {"tokens": 9 * 10**12}
    assert manager.usage().total == {"tokens": 9 * 10**12}
