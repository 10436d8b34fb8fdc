"""Budgets of trees: what descendants spend counts for the budget of the job above them, on every store."""

from __future__ import annotations

import pytest

from milepost import Jobs, Run
from tests.waiting import PATIENCE


@pytest.fixture
def jobs(idle_jobs: Jobs) -> Jobs:
    return idle_jobs


def test_budget_of_a_tree_stops_a_running_child(jobs: Jobs) -> None:
    @jobs.job("spend")
    def spend(run: Run) -> None:
        run.add_usage(usd=3)
        while True:
            run.check()
            run._wait_in_place(0.01)

    @jobs.job("root")
    def root(run: Run) -> None:
        run.submit_child("a", spend)  # without a join: the budget alone stops the child

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(root.options(budget={"usd": 2})), PATIENCE)
        (child,) = (one for one in jobs.list_jobs() if one.parent_id == job.job_id)
        child = jobs.wait(child, PATIENCE)
    assert child.error == (
        f"budget of job {job.job_id}: 3 of 2 usd spent with its descendants; submit a job with a larger budget"
    )
    assert (child.status, child.attempt, job.status) == ("failed", 1, "completed")
    assert jobs.job_usage(job.job_id).total == {"usd": 3}


def test_child_of_a_tree_without_rest_does_not_start(jobs: Jobs) -> None:
    begun = []

    @jobs.job("spend")
    def spend(run: Run, number: int) -> None:
        begun.append(number)
        run.add_usage(usd=1)

    @jobs.job("root")
    def root(run: Run) -> None:
        for number in range(12):
            run.submit_child(str(number), spend, number=number)
        run.join(errors="collect")

    with jobs.run_workers(concurrency=1):
        job = jobs.wait(jobs.submit(root.options(budget={"usd": 2})), PATIENCE)
    children = [one for one in jobs.list_jobs() if one.parent_id == job.job_id]
    completed = [one for one in children if one.status == "completed"]
    assert 2 <= len(completed) == len(begun) <= 5, "a start may overlap the end of the job before"
    failed = [one.error or "" for one in children if one.status == "failed"]
    assert all("of 2 usd spent with its descendants" in error for error in failed)
    assert (job.status == "failed") is (len(completed) > 2), "at its limit a budget is not exceeded"
    assert jobs.job_usage(job.job_id).budget == {"usd": 2}


def test_jobs_of_a_spent_budget_take_no_start_of_a_rate(jobs: Jobs) -> None:
    @jobs.job("spend")
    def spend(run: Run) -> str:
        return "done"

    @jobs.job("root")
    def root(run: Run) -> None:
        run.step("pay", lambda: run.add_usage(usd=1))
        for number in range(5):
            run.submit_child(str(number), spend)
        run.join(errors="collect")

    jobs.limit("spend", rate="1/h")
    with jobs.run_workers():
        job = jobs.wait(jobs.submit(root.options(budget={"usd": 1})), PATIENCE)
        children = [one for one in jobs.list_jobs() if one.parent_id == job.job_id]
        assert jobs.wait(jobs.submit(spend), PATIENCE).status == "completed"
        assert job.status == "completed"
        assert [one.status for one in children] == ["failed"] * 5
