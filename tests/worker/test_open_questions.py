"""A running job names the question that it waits for: one that can still be answered, on every store."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from milepost import AsyncRun, Jobs, QuestionExpiredError, Run
from tests.chaos.calibration import slowness
from tests.waiting import PATIENCE, current, until

pytestmark = pytest.mark.timing

BOTH = {"size": ("Which size?", str), "publish": ("Publish it?", bool)}


class Repeats:
    """A job that repeats its work before it asks, once its question has expired."""

    def __init__(self) -> None:
        self.starts = 0
        self.is_repeating, self.may_ask = threading.Event(), threading.Event()
        self.expires = slowness()  # a question that expires before its job is suspended is settled without a repetition

    def run(self, run: Run) -> bool:
        self.starts += 1
        if self.starts == 2:
            self.is_repeating.set()
            assert self.may_ask.wait(PATIENCE)
        return run.ask("publish", "Publish?", bool, expires=self.expires, default=False)

    async def arun(self, run: AsyncRun) -> bool:
        self.starts += 1
        if self.starts == 2:
            self.is_repeating.set()
            assert await asyncio.to_thread(self.may_ask.wait, PATIENCE)
        return await run.ask("publish", "Publish?", bool, expires=self.expires, default=False)


@pytest.mark.parametrize("name", ["run", "arun"])
def test_expired_question_is_not_named_before_code_asks_again(jobs: Jobs, name: str) -> None:
    """Regression: the job said that its question waits for an answer, which was refused."""
    repeats = Repeats()
    jobs.job("asks")(getattr(repeats, name))
    with jobs.run_workers(concurrency=1):
        job_id = jobs.submit("asks").job_id
        assert repeats.is_repeating.wait(PATIENCE)
        job = current(jobs, job_id)
        with pytest.raises(QuestionExpiredError):
            jobs.answer(job_id, "publish", True)
        repeats.may_ask.set()
        assert jobs.wait(job_id, PATIENCE).result is False
    assert [one.state for one in job.questions] == ["open"]
    assert (job.status, job.waiting_for, job.activity) == ("running", None, "Running")


def test_question_left_open_does_not_hide_question_for_larger_budget(jobs: Jobs) -> None:
    may_end = threading.Event()

    @jobs.job("page")
    def page(run: Run) -> None:
        run.add_usage(usd=3)
        until(lambda: run.check() or jobs.job_usage(run.job_id.partition(".")[0]).budget["usd"] > 3)

    @jobs.job("book")
    def book(run: Run) -> Any:
        try:
            run.ask_all(BOTH, expires=0.2)
        except QuestionExpiredError:
            run.submit_child("a", page)
        assert may_end.wait(PATIENCE)

    with jobs.run_workers(concurrency=2):
        job_id = jobs.submit(book.options(budget={"usd": 1}, on_budget="ask")).job_id
        until(lambda: any(one.budget for one in current(jobs, job_id).questions))
        job = current(jobs, job_id)
        jobs.answer(job_id, "budget-1", {"usd": 9})
        may_end.set()
        assert jobs.wait(job_id, PATIENCE).status == "completed"
    assert {one.key: one.state for one in job.questions} == {"size": "open", "publish": "expired", "budget-1": "open"}
    assert job.activity == "Question budget-1 waits for an answer"


def asks(jobs: Jobs, job_id: str) -> bool:
    """Return whether a job says that it waits for an answer, while its code runs."""
    job = current(jobs, job_id)
    return (job.status.value, job.activity) == ("running", "Question publish waits for an answer")


def test_tracked_block_waits_in_place(jobs: Jobs) -> None:
    with jobs.track("asks") as run:
        with ThreadPoolExecutor(1) as threads:
            answered = threads.submit(
                lambda: until(lambda: asks(jobs, run.job_id)) and jobs.answer(run.job_id, "publish", True)
            )
            assert run.ask("publish", "Publish?", bool) is True
        answered.result()
        assert current(jobs, run.job_id).activity == "Running"
        assert run.ask("late", "Publish?", bool, expires=0.1, default=False) is False
