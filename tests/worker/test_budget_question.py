"""A job whose budget is spent asks a person to raise it, and continues from its kept steps, on every store."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from milepost import (
    AlreadyAnsweredError,
    AsyncRun,
    IllegalTransitionError,
    InvalidInputError,
    Job,
    JobManager,
    Jobs,
    JobSuspended,
    RejectedError,
    Run,
)
from milepost.core.values import Question
from milepost.run import budget_question
from milepost.run.run import current_run
from milepost.stores.protocol import Store
from tests.waiting import PATIENCE, until
from tests.worker import spending
from tests.worker.conftest import Workers

pytestmark = pytest.mark.timing

PAID: list[str] = []


def pay(name: str) -> str:
    """Spend 0.4 USD for an answer; what follows in the same step is not cut off."""
    current_run().add_usage(usd=0.4)
    current_run().check()
    PAID.append(name)
    return name


def ask_model(run: Run) -> list[str]:
    return [run.step(name, pay, name) for name in "abcd"]


async def aask_model(run: AsyncRun) -> list[str]:
    return [await run.step(name, pay, name) for name in "abcd"]


def asked(jobs: Jobs | JobManager, job_id: str, count: int = 1) -> Question:
    """Return the open question of a job, as soon as it has asked `count` of them."""

    def found() -> Job | None:
        job = jobs.get_job(job_id)
        return job if job is not None and len(job.questions) >= count else None

    *_, question = until(found).questions
    return question


def waits_for_answer(jobs: Jobs, job_id: str) -> None:
    """Wait until a job is suspended."""
    until(lambda: "held" in jobs.get_job(job_id).record)  # type: ignore[union-attr]


@pytest.mark.parametrize("handler", [ask_model, aask_model])
def test_raised_budget_continues_from_kept_steps(jobs: Jobs, handler: Any) -> None:
    PAID.clear()
    jobs.job("model", max_attempts=3)(handler)
    with jobs.run_workers(concurrency=1):
        job = jobs.enqueue("model", budget={"usd": 0.5, "tokens": 9}, on_budget="ask")
        question = asked(jobs, job.job_id)
        assert (question.key, question.state, question.budget) == ("budget-1", "open", {"usd": 0.5, "tokens": 9})
        assert question.prompt == "0.8 of 0.5 usd spent. Add how much to the budget? 0 stops the job."
        waits_for_answer(jobs, job.job_id)
        assert (PAID, jobs.job_usage(job.job_id).own) == (["a", "b"], {"usd": 0.8}), "the step was finished and kept"
        jobs.answer(job.job_id, "budget-1", {"usd": 0.5}, by="ana")
        second = asked(jobs, job.job_id, 2)
        assert (second.key, second.budget) == ("budget-2", {"usd": 1, "tokens": 9})
        jobs.answer(job.job_id, "budget-2", {"usd": 1}, by="bob")
        ended = jobs.wait(job, PATIENCE)
    assert (ended.status, ended.result, ended.attempt) == ("completed", list("abcd"), 1)
    assert list("abcd") == PAID, "nothing is paid for twice"
    assert [(one.state, one.answered_by) for one in ended.questions] == [("answered", "ana"), ("answered", "bob")]
    found = jobs.job_usage(job.job_id)
    assert (found.budget, found.on_budget) == ({"usd": 2, "tokens": 9}, "ask")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"usd": 0.1}, "usd: is too little: still 0.8 of 0.6 usd spent; add more, or 0 to stop the job"),
        ({}, "usd: is missing"),
        ({"usd": -1}, "usd: -1 must be at least 0"),
        ({"usd": True}, "usd: True is not a number"),
        ({"usd": 1e12}, "usd: 1000000000000.0 is too much"),
        ({"usd": 1, "eur": 1}, "eur: is not a parameter"),
        (5, "value: 5 is not an object"),
    ],
)
def test_answer_that_raises_nothing_is_refused(suspended: tuple[Jobs, Job], value: Any, problem: str) -> None:
    jobs, job = suspended
    with pytest.raises(InvalidInputError) as refused:
        jobs.answer(job.job_id, "budget-1", value)
    assert str(refused.value).startswith(problem)
    again = jobs.get_job(job.job_id)
    assert again is not None
    assert again.version == job.version


@pytest.fixture(scope="module")
def suspended() -> Any:
    """Yield a job that waits for a larger budget, and its application."""
    jobs = Jobs("memory://")
    jobs.job("model")(ask_model)
    with jobs.run_workers(concurrency=1):
        job = jobs.enqueue("model", budget={"usd": 0.5}, on_budget="ask")
        asked(jobs, job.job_id)
        waits_for_answer(jobs, job.job_id)
    found = jobs.get_job(job.job_id)
    assert found is not None
    yield jobs, found
    jobs.close()


def test_zero_stops_the_job_and_a_retry_asks_again(jobs: Jobs) -> None:
    jobs.job("model")(ask_model)
    with jobs.run_workers(concurrency=1):
        job_id = jobs.enqueue("model", budget={"usd": 0.5}, on_budget="ask").job_id
        with pytest.raises(RejectedError, match="'budget-2' was not asked yet"):
            jobs.answer(job_id, "budget-2", {"usd": 5})
        asked(jobs, job_id)
        stopped = jobs.answer(job_id, "budget-1", {"usd": 0}, by="ana")
        assert (stopped.status, stopped.receipt and stopped.receipt.reason) == (
            "cancelled",
            "budget-1: the budget was not raised",
        )
        assert stopped.receipt is not None
        assert stopped.receipt.requested_by == "ana"
        with pytest.raises(IllegalTransitionError):
            jobs.answer(job_id, "budget-1", {"usd": 5})
        jobs.retry_job(job_id)
        waits_for_answer(jobs, job_id)
        jobs.answer(job_id, "budget-1", {"usd": 5})
        assert jobs.wait(job_id, PATIENCE).status == "completed"


def test_one_of_many_answers_raises_the_budget(jobs: Jobs) -> None:
    jobs.job("model")(ask_model)
    with ThreadPoolExecutor(6) as threads, jobs.run_workers(concurrency=1):
        job_id = jobs.enqueue("model", budget={"usd": 0.5}, on_budget="ask").job_id
        asked(jobs, job_id)
        calls = [threads.submit(jobs.answer, job_id, "budget-1", {"usd": 5}, by=f"user{n}") for n in range(6)]
        errors = [call.exception() for call in calls]
        jobs.wait(job_id, PATIENCE)
    assert errors.count(None) == 1
    assert all(error is None or isinstance(error, AlreadyAnsweredError | IllegalTransitionError) for error in errors)
    assert jobs.job_usage(job_id).budget == {"usd": 5.5}


def test_raise_survives_retries(jobs: Jobs) -> None:
    @jobs.job("fails")
    def fails(run: Run) -> None:
        run.step("a", pay, "a")
        run.step("b", pay, "b")
        raise RuntimeError

    with jobs.run_workers(concurrency=1):
        job_id = jobs.enqueue("fails", budget={"usd": 0.3}, on_budget="ask", max_attempts=1).job_id
        asked(jobs, job_id)
        jobs.answer(job_id, "budget-1", {"usd": 2})
        assert jobs.wait(job_id, PATIENCE).status == "failed"
        jobs.retry_job(job_id, from_start=True)
        again = jobs.wait(job_id, PATIENCE)
    assert (again.status, again.usage, again.questions) == ("failed", {"usd": 1.6}, ())
    assert again.error is not None
    assert "budget" not in again.error


def test_caught_suspension_is_no_result(jobs: Jobs) -> None:
    @jobs.job("model")
    def model(run: Run) -> str:
        try:
            run.add_usage(usd=0.4)
            return "all"
        except JobSuspended:
            return "a part"

    with jobs.run_workers(concurrency=1):
        job_id = jobs.enqueue("model", budget={"usd": 0.1}, on_budget="ask").job_id
        asked(jobs, job_id)
        waits_for_answer(jobs, job_id)
        jobs.answer(job_id, "budget-1", {"usd": 5})
        assert jobs.wait(job_id, PATIENCE).result == "all"


def test_run_that_calls_no_more_completes(jobs: Jobs) -> None:
    @jobs.job("model")
    def model(run: Run) -> str:
        return run.step("a", pay, "a")

    with jobs.run_workers(concurrency=1):
        job = jobs.wait(jobs.enqueue("model", budget={"usd": 0.1}, on_budget="ask"), PATIENCE)
    assert (job.status, job.result, job.questions) == ("completed", "a", ())


def test_gathered_step_is_finished_and_kept(jobs: Jobs) -> None:
    """With `return_exceptions` the step of another task, which is under way at the suspension, is not cut off."""
    PAID.clear()

    @jobs.job("model")
    async def model(run: AsyncRun) -> list[str | BaseException]:
        suspended = asyncio.Event()

        async def slow() -> str:
            await suspended.wait()
            return pay("slow")

        async def quick() -> str:
            await run.step("a", pay, "a")
            try:
                return await run.step("b", pay, "b")
            finally:
                suspended.set()

        return await asyncio.gather(run.step("slow", slow), quick(), return_exceptions=True)

    with jobs.run_workers(concurrency=1):
        job_id = jobs.enqueue("model", budget={"usd": 0.3}, on_budget="ask").job_id
        asked(jobs, job_id)
        jobs.answer(job_id, "budget-1", {"usd": 9})
        assert jobs.wait(job_id, PATIENCE).result == ["slow", "b"]
    assert PAID == ["a", "slow", "b"]


def test_tree_asks_once_and_all_wait(jobs: Jobs) -> None:
    """The children that run are suspended, the others do not start; the answer to the question of the root wakes them."""
    PAID.clear()

    @jobs.job("page")
    def page(run: Run, number: int) -> None:
        run.step("a", pay, f"{number}a")
        run.step("b", pay, f"{number}b")

    @jobs.job("book")
    def book(run: Run) -> int:
        for number in range(6):
            run.submit_child(str(number), page, number=number)
        return len(run.join())

    def waiting() -> list[Job]:
        open_pages = [one for one in jobs.list_jobs(job_type="page") if not one.is_terminal]
        return open_pages if {one.activity for one in open_pages} == {expected} else []

    with jobs.run_workers(concurrency=2):
        root = jobs.enqueue("book", budget={"usd": 1}, on_budget="ask")
        question = asked(jobs, root.job_id)
        expected = f"Waiting for an answer to question budget-1 of job {root.job_id}"
        assert until(waiting)
        assert "spent with its descendants" in question.prompt
        jobs.answer(root.job_id, "budget-1", {"usd": 9})
        job = jobs.wait(root, PATIENCE)
    children = jobs.list_jobs(job_type="page")
    assert (job.status, job.result, len(job.questions)) == ("completed", 6, 1)
    assert {(one.status.value, one.attempt, one.questions) for one in children} == {("completed", 1, ())}
    assert sorted(PAID) == [f"{number}{step}" for number in range(6) for step in "ab"]
    assert jobs.job_usage(root.job_id).total == {"usd": 4.8}


def test_answer_while_a_child_is_being_suspended_is_seen(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer wakes nothing, since no child waits yet; the child looks for it soon after."""
    ask = budget_question.ask_to_raise

    async def ask_and_answer(store: Store, run: Run, holder: str, usage: str | None) -> Any:
        wait = await ask(store, run, holder, usage)
        jobs.answer(holder, "budget-1", {"usd": 9})
        return wait

    monkeypatch.setattr(budget_question, "ask_to_raise", ask_and_answer)

    @jobs.job("page")
    def page(run: Run) -> None:
        run.step("a", pay, "a")
        while (root := jobs.get_job(run.job_id.partition(".")[0])) and not root.questions:
            run._wait_in_place(0.01)

    @jobs.job("book")
    def book(run: Run) -> int:
        run.submit_child("a", page)
        return len(run.join())

    with jobs.run_workers(concurrency=1):
        root = jobs.enqueue("book", budget={"usd": 0.1}, on_budget="ask")
        assert jobs.wait(root, PATIENCE).result == 1


def test_child_of_an_ended_job_fails(jobs: Jobs) -> None:
    @jobs.job("page")
    def page(run: Run) -> None:
        until(lambda: jobs.get_job(run.job_id.partition(".")[0]).is_terminal)  # type: ignore[union-attr]
        run.add_usage(usd=3)
        while True:
            run.check()
            run._wait_in_place(0.01)

    @jobs.job("book")
    def book(run: Run) -> None:
        run.submit_child("a", page)

    with jobs.run_workers():
        root = jobs.wait(jobs.enqueue("book", budget={"usd": 1}, on_budget="ask"), PATIENCE)
        (child,) = jobs.list_jobs(job_type="page")
        child = jobs.wait(child, PATIENCE)
    assert (root.status, child.status) == ("completed", "failed")
    assert child.error is not None
    assert child.error.startswith(f"budget of job {root.job_id}: 3 of 1 usd spent with its descendants")


def test_child_process_asks(jobs: Jobs) -> None:
    jobs.handlers.add(spending.spends)
    with jobs.run_workers(concurrency=1):
        job_id = jobs.enqueue("spends.child", budget={"usd": 0.5}, on_budget="ask").job_id
        assert asked(jobs, job_id).prompt.startswith("0.8 of 0.5 usd spent")
        waits_for_answer(jobs, job_id)
        jobs.answer(job_id, "budget-1", {"usd": 5})
        job = jobs.wait(job_id, 60)
    assert (job.status, job.usage, job.attempt) == ("completed", {"usd": 1.6}, 1)


def test_unknown_choice_is_refused(jobs: Jobs) -> None:
    with pytest.raises(InvalidInputError, match="on_budget: 'wait' must be 'fail' or 'ask'"):
        jobs.enqueue("model", budget={"usd": 1}, on_budget="wait")  # type: ignore[typeddict-item]


def test_killed_workers_ask_once_and_pay_nothing_twice(workers: Workers) -> None:
    """One worker is killed while the code returns, one while the question is open, one after the answer."""
    jobs = workers.jobs()
    process = workers.start(concurrency=1, module="tests.worker.spending")
    job_id = jobs.enqueue("spends.slowly", budget={"usd": 0.5}, on_budget="ask", max_attempts=9).job_id
    workers.noted("unwinds")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process = workers.start(concurrency=1, module="tests.worker.spending")
    asked(jobs, job_id)
    waits_for_answer(jobs, job_id)  # a third crash would fail the job
    process.send_signal(signal.SIGKILL)
    process.wait()
    jobs.answer(job_id, "budget-1", {"usd": 5}, by="ana")
    process = workers.start(concurrency=1, module="tests.worker.spending")
    workers.noted("paid c")
    process.send_signal(signal.SIGKILL)
    process.wait()
    (workers.log.parent / "go").touch()
    workers.start(concurrency=1, module="tests.worker.spending")
    job = jobs.wait(job_id, 60)
    assert (job.status, job.result, len(job.questions)) == ("completed", list("abcd"), 1)
    assert jobs.job_usage(job_id).budget == {"usd": 5.5}
    for name in "abd":
        assert len(workers.noted(f"paid {name}")) == 1, "a kept answer is not paid for again"
    jobs.close()
