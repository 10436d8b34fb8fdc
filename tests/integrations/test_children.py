"""Children of jobs of a task queue."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from milepost import Jobs, Run
from milepost.core.errors import InvalidInputError
from milepost.worker.message_execution import MessageExecution
from tests.integrations.direct_task_queue import DirectTaskQueue, ended

pytestmark = pytest.mark.timing


def test_children_run_where_their_type_is_registered(make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]]) -> None:
    jobs, task_queue = make_jobs()
    others = Jobs(jobs.store.url)

    @jobs.job("here")
    def here(run: Run) -> str:
        return "here"

    @others.job("elsewhere")
    def elsewhere(run: Run) -> str:
        return "elsewhere"

    @jobs.job("parent")
    def parent(run: Run) -> list[str]:
        run.submit_child("a", here)
        run.submit_child("b", elsewhere.options(priority=2))
        children = run.join()
        return [children.result("a"), children.result("b")]

    job_id = jobs.submit(parent).job_id
    with others.run_workers():
        assert ended(jobs, job_id).result == ["here", "elsewhere"]
    children = {job.job_type: job for job in jobs.list_jobs() if job.parent_id == job_id}
    assert {name: job.run_by for name, job in children.items()} == {"here": "external", "elsewhere": "worker"}
    assert set(task_queue.sent) == {job_id, children["here"].job_id}
    others.close()


def test_retried_parent_retries_its_child_on_the_task_queue(
    make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]],
) -> None:
    jobs, _ = make_jobs()
    attempts: list[int] = []

    @jobs.job("flaky")
    def flaky(run: Run) -> str:
        attempts.append(run.attempt)
        if len(attempts) == 1:
            raise ValueError("not yet")
        return "done"

    @jobs.job("parent", max_attempts=2)
    def parent(run: Run) -> str:
        run.submit_child("a", flaky)
        result: str = run.join().result("a")
        return result

    job = ended(jobs, jobs.submit(parent).job_id)
    assert (job.status, job.attempt, job.result, len(attempts)) == ("completed", 2, "done", 2)


def test_task_under_tracked_is_refused_children(make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]]) -> None:
    jobs, task_queue = make_jobs()
    task_queue.down = True

    @jobs.job("part")
    def part(run: Run) -> None: ...

    job_id = jobs.submit(part).job_id
    delivery = MessageExecution(jobs, task_queue, job_id, recreate=list)
    with pytest.raises(InvalidInputError, match=r"run\.submit_child\(\).*@tracked.*handler of jobs\.job"):
        delivery.execute(lambda run: run.submit_child("a", part))
