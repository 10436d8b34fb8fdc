"""Parents that complete while children are open: the children run on, and the record says how many were left."""

from __future__ import annotations

import threading

import pytest

from milepost import AsyncRun, Jobs, Run
from tests.waiting import PATIENCE
from tests.worker import with_children
from tests.worker.squares import Square

pytestmark = pytest.mark.timing


@pytest.fixture
def jobs(idle_jobs: Jobs) -> Jobs:
    return idle_jobs


@pytest.mark.parametrize("is_async", [False, True])
def test_parent_that_completes_without_join_leaves_its_children_to_run(jobs: Jobs, is_async: bool) -> None:
    gate = threading.Event()

    @jobs.job("late")
    def late(run: Run, n: int) -> int:
        while not gate.wait(0.05):
            run.check()
        return n * n

    @jobs.job("hasty")
    def hasty(run: Run) -> str:
        run.submit_child("two", late, n=2)
        return run.submit_child("one", late, n=4)

    @jobs.job("ahasty")
    async def ahasty(run: AsyncRun) -> str:
        run.submit_child("two", late, n=2)
        return run.submit_child("one", late, n=4)

    with jobs.run_workers():
        job = jobs.wait(jobs.submit("ahasty" if is_async else "hasty").job_id, PATIENCE)
        left = (job.open_children, job.activity)
        (event,) = [one for one in jobs.events(job.job_id) if one.kind == "completed"]
        gate.set()
        assert jobs.wait(job.result, PATIENCE).result == 16
    assert left == (2, f"{job.result} · completed with 2 open children")
    assert event.data["open_children"] == 2


def test_parent_that_adds_a_child_after_join_says_so(jobs: Jobs) -> None:
    square = Square(jobs)
    gate = threading.Event()

    @jobs.job("late")
    def late(run: Run) -> None:
        while not gate.wait(0.05):
            run.check()

    @jobs.job("both")
    def both(run: Run) -> None:
        run.submit_child("one", jobs.handlers["square"], n=4)
        run.join()
        run.submit_child("late", late)

    @jobs.job("joined")
    def joined(run: Run) -> None:
        run.submit_child("one", jobs.handlers["square"], n=4)
        run.join()

    assert square.segments == 0
    with jobs.run_workers():
        try:
            found = [jobs.wait(jobs.submit(name).job_id, PATIENCE) for name in ("both", "joined")]
            assert [job.open_children for job in found] == [1, 0]
        finally:
            gate.set()


def test_parent_in_a_child_process_says_how_many_children_it_left_open(sqlite_url: str) -> None:
    jobs = Jobs(sqlite_url)
    for handler in with_children.jobs.handlers.values():
        jobs.handlers.add(handler)
    jobs.limit("echo.child", running=0)
    with jobs.run_workers():
        job = jobs.wait(jobs.submit("hasty.child", {}).job_id, 60)
    assert job.open_children == 1, job.error
    jobs.close()
