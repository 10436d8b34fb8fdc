"""Deletes of a job with its children, and retries of a job with those that were cancelled because of it, on every store."""

from __future__ import annotations

import threading

import pytest

from milepost import Fail, Jobs, Run
from milepost.core.errors import IllegalTransitionError, InvalidInputError
from tests.waiting import PATIENCE, until


@pytest.fixture
def jobs(idle_jobs: Jobs) -> Jobs:
    return idle_jobs


def test_delete_of_a_job_deletes_its_descendants(jobs: Jobs) -> None:
    hold = threading.Event()

    @jobs.job("tree")
    def tree(run: Run, depth: int) -> None:
        if depth:
            for name in "ab":
                run.submit_child(name, tree, depth=depth - 1)
            run.join()
        else:
            while not hold.is_set():
                run.check()
                run._wait_in_place(0.01)

    with jobs.run_workers(concurrency=4):
        root = jobs.submit(tree, depth=2).job_id
        mine = jobs.create_job("mine", parent_id=root)
        until(lambda: jobs.count_jobs("tree") == 7)
        child = next(job for job in jobs.list_jobs() if job.parent_id == root and job.child_key)
        with pytest.raises(
            IllegalTransitionError, match=f"it is a child of job {root}, which is .*; cancel the child, or"
        ):
            jobs.delete_job(child.job_id)
        jobs.delete_job(root)
        assert jobs.count_jobs("tree") == 0
    assert jobs.get_job(mine.job_id) is not None


def test_child_of_an_ended_parent_can_be_deleted(jobs: Jobs) -> None:
    @jobs.job("leaf")
    def leaf(run: Run) -> None: ...

    @jobs.job("root")
    def root(run: Run) -> str:
        return run.submit_child("a", leaf)

    with jobs.run_workers():
        child = jobs.wait(jobs.submit(root), PATIENCE).result
        jobs.wait(child, PATIENCE)
    jobs.delete_job(child)
    assert jobs.get_job(child) is None


def test_retry_of_a_child_without_its_parent_is_refused(jobs: Jobs) -> None:
    @jobs.job("leaf", max_attempts=1)
    def leaf(run: Run) -> None:
        raise Fail("no such file")

    @jobs.job("root", max_attempts=1)
    def root(run: Run) -> None:
        run.submit_child("a", leaf)
        run.join()

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(root))
    (child,) = jobs.list_jobs("leaf")
    lost = f"its parent {job.job_id} has failed, was cancelled or was removed; retry its parent"
    with pytest.raises(IllegalTransitionError, match=lost):
        jobs.retry_job(child.job_id)
    jobs.retry_job(job.job_id)
    jobs.retry_job(child.job_id)


def test_retry_puts_back_what_was_cancelled_because_of_it(jobs: Jobs) -> None:
    fails = threading.Event()
    fails.set()

    @jobs.job("load")
    def load(run: Run) -> None:
        if fails.is_set():
            raise Fail("no such file")

    @jobs.job("report")
    def report(run: Run) -> str:
        return "done"

    bad = jobs.submit(load.options(group="g"))
    by_job = jobs.submit(report.options(after=[bad]))
    by_group = jobs.submit(report.options(after=["group:g"]))
    last = jobs.submit(report.options(after=[by_job]))
    other = jobs.submit(report.options(after=[bad]))
    jobs.cancel_job(other.job_id)
    with jobs.run_workers():
        for job in (by_job, by_group, last):
            assert jobs.wait(job, PATIENCE).status == "cancelled"
        with pytest.raises(InvalidInputError, match="only_failed: submits a new job"):
            jobs.retry_job(bad.job_id, only_failed=True, dependents=True)
        fails.clear()
        jobs.retry_job(bad.job_id, dependents=True)
        for job in (by_job, by_group, last):
            assert jobs.wait(job, PATIENCE).result == "done"
    assert jobs.wait(other).status == "cancelled"
