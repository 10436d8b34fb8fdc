"""The next steps that `milepost show` offers where a retry would fail or be refused, on every kind of store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from milepost import Jobs, Run
from milepost.core.job import Job
from milepost.core.transitions import plan_create
from milepost.manager.validation import submit_fields
from milepost.stores.protocol import Write
from milepost.stores.sync_bridge import run_sync
from tests.cli.stores_fixture import StoreFixture
from tests.waiting import PATIENCE, until

SUBMIT = "milepost submit spend ARG... --budget NAME=AMOUNT"


@pytest.fixture
def jobs(where: StoreFixture) -> Iterator[Jobs]:
    """Yield an application with a worker, whose handlers spend."""
    with where.manager() as manager:
        jobs = Jobs(manager.store, options=manager.settings)

        @jobs.job("spend")
        def spend(run: Run, usd: float, then: str = "return") -> None:
            run.add_usage(usd=usd)
            if then == "fail":
                raise ValueError("no model")
            while then == "wait":
                run.check()

        @jobs.job("parent")
        def parent(run: Run, usd: float = 3, then: str = "wait", joins: bool = True) -> None:
            run.submit_child("child", spend, usd=usd, then=then)
            if joins:
                run.join()

        with jobs.run_workers():
            until(jobs.workers)
            yield jobs


def next_steps(where: StoreFixture, job: Job) -> list[str]:
    """Return the steps that `milepost show` offers, without the id of the job."""
    last = where.call("show", job.job_id).splitlines()[-1]
    return [step.removesuffix(job.job_id).strip() for step in last.removeprefix("Next: ").split(" · ")]


def ended(jobs: Jobs, usd: float, then: str = "return") -> Job:
    """Return a job that has ended, with a budget of 2."""
    handler: Any = jobs.handlers["spend"]
    return jobs.wait(jobs.submit(handler.options(budget={"usd": 2}), usd=usd, then=then), timeout=PATIENCE)


def only_child(where: StoreFixture, jobs: Jobs, parent: Job) -> Job:
    """Return the child of a job that ends, once it has ended as well."""
    jobs.wait(parent, timeout=PATIENCE)
    [row] = where.rows("ls", f"parent:{parent.job_id}")
    return jobs.wait(row["job_id"], timeout=PATIENCE)


def test_retry_is_not_offered_once_the_budget_is_spent(where: StoreFixture, jobs: Jobs) -> None:
    """Regression: a retry was offered, which fails at its start."""
    job = ended(jobs, 3)
    assert next_steps(where, job) == [SUBMIT, "milepost logs", "milepost rm"]
    where.call("retry", job.job_id)
    assert (jobs.wait(job, timeout=PATIENCE).error or "").startswith("budget: 3 of 2 usd spent by earlier runs")
    assert next_steps(where, job) == [SUBMIT, "milepost logs", "milepost rm"]


def test_retry_is_offered_without_a_rest_of_the_budget(where: StoreFixture, jobs: Jobs) -> None:
    job = ended(jobs, 2, "fail")
    assert job.error == "no model"
    assert next_steps(where, job) == ["milepost retry", "milepost logs", "milepost rm"]
    where.call("retry", job.job_id)
    assert (jobs.wait(job, timeout=PATIENCE).error or "").startswith("budget: 4 of 2 usd spent")


def test_retry_is_offered_within_the_budget(where: StoreFixture, jobs: Jobs) -> None:
    job = ended(jobs, 1, "fail")
    assert next_steps(where, job) == ["milepost retry", "milepost logs", "milepost rm"]


def test_retry_is_offered_if_it_asks_for_a_larger_budget(where: StoreFixture, jobs: Jobs) -> None:
    handler: Any = jobs.handlers["spend"]
    job = jobs.submit(handler.options(budget={"usd": 2}, on_budget="ask"), usd=3)
    until(lambda: (found := jobs.get_job(job.job_id)) and found.questions)
    jobs.answer(job.job_id, "budget-1", {"usd": 0})
    assert jobs.wait(job, timeout=PATIENCE).status == "cancelled"
    assert next_steps(where, job) == ["milepost retry", "milepost logs", "milepost rm"]


def test_retry_of_a_child_is_not_offered_once_a_budget_above_is_spent(where: StoreFixture, jobs: Jobs) -> None:
    handler: Any = jobs.handlers["parent"]
    parent = jobs.submit(handler.options(budget={"usd": 2}, children="keep"))
    child = only_child(where, jobs, parent)
    assert jobs.wait(parent, timeout=PATIENCE).status == "failed"
    assert next_steps(where, child) == ["milepost logs", "milepost rm"]
    where.call("retry", child.job_id)
    error = f"budget of job {parent.job_id}: 3 of 2 usd spent with its descendants"
    assert (jobs.wait(child, timeout=PATIENCE).error or "").startswith(error)


def test_parent_that_failed_is_shown_instead_of_a_retry_of_its_child(where: StoreFixture, jobs: Jobs) -> None:
    """Regression: a retry was offered, which is refused."""
    parent = jobs.submit("parent", {"usd": 1, "then": "fail"})
    child = only_child(where, jobs, parent)
    assert next_steps(where, child) == [f"milepost show {parent.job_id}", "milepost logs", "milepost rm"]
    assert "retry its parent" in where.run("retry", child.job_id).stderr


def test_retry_of_a_child_is_offered_if_its_parent_has_completed(where: StoreFixture, jobs: Jobs) -> None:
    child = only_child(where, jobs, jobs.submit("parent", {"usd": 1, "then": "fail", "joins": False}))
    assert next_steps(where, child) == ["milepost retry", "milepost logs", "milepost rm"]


def test_retry_of_a_kept_child_is_offered_after_its_parent_has_failed(where: StoreFixture, jobs: Jobs) -> None:
    parent = jobs.submit("parent", {"usd": 1, "then": "fail"}, children="keep")
    child = only_child(where, jobs, parent)
    assert next_steps(where, child) == ["milepost retry", "milepost logs", "milepost rm"]


def test_newer_job_is_shown_instead_of_a_retry_under_its_unique_key(where: StoreFixture, jobs: Jobs) -> None:
    """Regression: a retry was offered, which is refused."""
    first = jobs.wait(jobs.submit("spend", {"usd": 1, "then": "fail"}, unique_key="report"), timeout=PATIENCE)
    other = jobs.wait(jobs.submit("spend", {"usd": 1, "then": "fail"}, unique_key="other"), timeout=PATIENCE)
    newer = jobs.wait(jobs.submit("spend", {"usd": 1}, unique_key="report"), timeout=PATIENCE)
    assert next_steps(where, first) == [f"milepost show {newer.job_id}", "milepost logs", "milepost rm"]
    assert "a newer job has its unique key" in where.run("retry", first.job_id).stderr
    assert next_steps(where, other) == ["milepost retry", "milepost logs", "milepost rm"]


def test_retry_is_offered_for_a_job_of_a_task_queue(where: StoreFixture, jobs: Jobs) -> None:
    """Regression: neither `show` nor a filter offered the retry that works."""
    fields = submit_fields("reports", params=None, task_queue="celery")
    run_sync(jobs.store.apply([Write("reports-1", plan_create(fields, "first"))]))
    job = jobs.cancel_job("reports-1")
    assert jobs.retry_check(job.job_id).reason is None
    assert next_steps(where, job) == ["milepost retry", "milepost logs", "milepost rm"]
    assert "reports-1  pending" in where.call("retry", "status:cancelled", "--yes")
