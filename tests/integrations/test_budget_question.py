"""A job of a task queue whose budget is spent: it asks a person, or fails where no message can start it again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from milepost import BudgetExceededError, Job, Jobs, Run
from milepost.worker.message_execution import MessageExecution
from tests.integrations.direct_task_queue import DirectTaskQueue, ended
from tests.waiting import until

pytestmark = pytest.mark.timing


def pay(run: Run, name: str) -> str:
    """Spend 0.4 USD for an answer."""
    run.add_usage(usd=0.4)
    return name


def suspended(jobs: Jobs, job_id: str) -> Job | None:
    """Return a job if it waits for an answer."""
    job = jobs.get_job(job_id)
    return job if job is not None and job.waiting_for is not None and job.waiting_for.code == "answer" else None


def test_message_asks_and_another_one_continues(make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]]) -> None:
    jobs, task_queue = make_jobs()

    @jobs.job("model")
    def model(run: Run) -> list[str]:
        return [run.step(name, pay, run, name) for name in "abc"]

    job_id = jobs.submit(model.options(budget={"usd": 0.5}, on_budget="ask")).job_id
    asking = until(lambda: suspended(jobs, job_id))
    assert [question.key for question in asking.questions] == ["budget-1"]
    jobs.answer(job_id, "budget-1", {"usd": 5}, by="ana")
    job = ended(jobs, job_id)
    assert (job.status, job.result, job.attempt) == ("completed", list("abc"), 1)
    assert job.usage == {"usd": 1.2}, "nothing is paid for twice"
    assert task_queue.sent == [job_id, job_id]


def test_child_on_a_task_queue_waits_for_the_answer_of_its_root(
    make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]],
) -> None:
    jobs, _ = make_jobs()
    starts: list[str] = []

    @jobs.job("page")
    def page(run: Run) -> str:
        starts.append(run.step("a", pay, run, "a"))
        while len(starts) == 1:  # the heartbeat tells it
            run._wait_in_place(0.01)
        return "done"

    @jobs.job("book")
    def book(run: Run) -> str:
        run.submit_child("a", page)
        result: str = run.join().result("a")
        return result

    root = jobs.submit(book.options(budget={"usd": 0.1}, on_budget="ask"))
    until(lambda: any(suspended(jobs, one.job_id) for one in jobs.list_jobs("page")))
    jobs.answer(root.job_id, "budget-1", {"usd": 5})
    assert (ended(jobs, root.job_id).result, jobs.job_usage(root.job_id).total) == ("done", {"usd": 0.4})


def test_task_under_tracked_fails(make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]]) -> None:
    jobs, task_queue = make_jobs()
    task_queue.down = True

    @jobs.job("model")
    def model(run: Run) -> None: ...

    job_id = jobs.submit(model.options(budget={"usd": 0.1}, on_budget="ask")).job_id
    delivery = MessageExecution(jobs, task_queue, job_id, recreate=list)
    with pytest.raises(BudgetExceededError, match=r"0\.4 of 0\.1 usd spent"):
        delivery.execute(lambda run: pay(run, "a"))
    job = ended(jobs, job_id)
    assert (job.status, job.questions) == ("failed", ())
