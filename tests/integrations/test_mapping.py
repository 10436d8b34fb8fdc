"""The table of statuses, times and errors of other interfaces, against real jobs."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from milepost import Fail, Jobs, Run
from milepost.core.job import Job, JobStatus
from milepost.core.values import FailureKind
from milepost.integrations import mapping
from milepost.integrations.mapping import CANCELLED, DJANGO, MCP, Interface

INTERFACES = [name for name, value in vars(mapping).items() if isinstance(value, Interface)]


@pytest.fixture(params=INTERFACES)
def interface(request: pytest.FixtureRequest) -> Interface[Any]:
    found: Interface[Any] = getattr(mapping, request.param)
    return found


def test_every_status_and_failure_has_a_word(interface: Interface[Any]) -> None:
    assert set(interface.statuses) == set(JobStatus)
    assert {*FailureKind, CANCELLED} >= set(interface.errors) >= set(FailureKind)
    assert set(interface.failed) <= set(FailureKind)


def test_unknown_kind_reads_as_error() -> None:
    assert DJANGO.error_of("a kind of a later release") == DJANGO.error_of(FailureKind.ERROR)


def test_errors_of_django_are_exception_classes() -> None:
    for path in DJANGO.errors.values():
        module, _, name = path.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), name), BaseException)


def test_kinds_of_failure_decide_what_mcp_sees() -> None:
    for kind in FailureKind:
        job = Job.stored("x", {"status": "failed", "failure": f'{{"kind":"{kind}"}}'})
        assert MCP.status_of(job) == ("completed" if kind in ("error", "timeout") else "failed")


def ended(jobs: Jobs, how: str) -> Job:
    """Return a job that has ended in a way, after two attempts if it failed."""

    @jobs.job("end", max_attempts=2)
    def end(run: Run, how: str) -> None:
        if how == "failed":
            raise Fail("no") if run.attempt == 2 else ValueError("no")

    job = jobs.submit(end.options(delay=60 if how == "cancelled" else None), how=how)
    if how == "cancelled":
        jobs.cancel_job(job.job_id)
    with jobs.run_workers():
        return jobs.wait(job.job_id)


@pytest.mark.parametrize(
    ("how", "django", "mcp", "attempts"),
    [
        ("completed", "SUCCESSFUL", "completed", 1),
        ("failed", "FAILED", "completed", 2),
        ("cancelled", "FAILED", "cancelled", 0),
    ],
)
def test_interfaces_see_a_job(url: str, how: str, django: str, mcp: str, attempts: int) -> None:
    jobs = Jobs(url)
    pending = jobs.create_job()
    assert MCP.status_of(pending) == "working"
    assert (DJANGO.status_of(pending), DJANGO.times_of(pending)["finished_at"]) == ("READY", None)
    job = ended(jobs, how)
    times = DJANGO.times_of(job)
    assert (DJANGO.status_of(job), MCP.status_of(job)) == (django, mcp)
    assert MCP.times_of(job) == {"createdAt": job.created_at, "lastUpdatedAt": job.updated_at}
    assert (times["enqueued_at"], times["finished_at"]) == (job.created_at, job.completed_at)
    assert len(job.attempts) == attempts
    if attempts:
        assert (times["started_at"], times["last_attempted_at"]) == (job.attempts[0].started_at, job.started_at)
        assert all(attempt.worker for attempt in job.attempts)
    else:
        assert (times["started_at"], times["last_attempted_at"]) == (None, None)
    jobs.close()
