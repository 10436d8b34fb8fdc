"""A worker that ends by itself: after a number of jobs, or when it has had none for a while."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from milepost import InvalidInputError, Jobs, Run
from tests.worker.conftest import MakeJobs

END = 60.0


@pytest.fixture
def jobs(make_jobs: MakeJobs) -> Jobs:
    jobs = make_jobs()
    jobs.worker()  # so that in memory none starts at a submit
    return jobs


def run_to_end(jobs: Jobs, **options: Any) -> None:
    """Run a worker in a thread until it ends by itself."""
    worker = jobs.worker(**options)
    with jobs.run_workers(0) as group:
        group.workers = [worker]
        group.__enter__()
        group._threads[0].join(END)
        assert not group._threads[0].is_alive(), "the worker did not end by itself"


def test_worker_ends_after_max_jobs_and_leaves_others(jobs: Jobs) -> None:
    together = threading.Barrier(2)

    @jobs.job("pair")
    def pair(run: Run, number: int) -> int:
        together.wait(END)
        return number

    ids = jobs.submit_many(pair, [{"number": number} for number in range(5)])
    run_to_end(jobs, max_jobs=4, concurrency=2)
    states = [job.status for job_id in ids if (job := jobs.get_job(job_id)) is not None]
    assert sorted(states) == ["completed"] * 4 + ["pending"], "its running jobs ended before it did"


def test_worker_counts_each_attempt(jobs: Jobs) -> None:
    @jobs.job("again", max_attempts=3, backoff=lambda attempt: 0)
    def again(run: Run) -> None:
        raise OSError(str(run.attempt))

    job = jobs.submit(again)
    run_to_end(jobs, max_jobs=2)
    found = jobs.get_job(job.job_id)
    assert found is not None
    assert (found.status, found.attempt) == ("pending", 2)


def test_worker_ends_when_idle(jobs: Jobs) -> None:
    @jobs.job("one")
    def one(run: Run) -> int:
        return 1

    done = jobs.submit(one)
    late = jobs.submit(one.options(delay="1h"))
    run_to_end(jobs, exit_when_idle=0)
    assert [jobs.result(done), jobs.get_job(late.job_id).status] == [1, "pending"]  # type: ignore[union-attr]


def test_idle_time_begins_when_last_job_ends(jobs: Jobs) -> None:
    @jobs.job("wait")
    def wait(run: Run) -> None:
        released.wait(END)

    released = threading.Event()
    job = jobs.submit(wait)
    worker = jobs.worker(exit_when_idle="0.05")
    with jobs.run_workers(0) as group:
        group.workers = [worker]
        group.__enter__()
        for event in jobs.watch(job.job_id):
            if event.kind == "running" or event.status == "running":
                break
        group._threads[0].join(0.3)
        assert group._threads[0].is_alive()
        released.set()
        group._threads[0].join(END)
        assert not group._threads[0].is_alive()
    assert jobs.wait(job).status == "completed"


@pytest.mark.parametrize(
    "wrong", [{"max_jobs": 0}, {"max_jobs": True}, {"exit_when_idle": -1}, {"exit_when_idle": "soon"}]
)
def test_wrong_limits_are_refused(wrong: dict[str, Any], make_jobs: MakeJobs) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        make_jobs().worker(**wrong)
