"""Worker processes under real signals: drained, stopped at once, killed, frozen; on the stores that processes share."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from milepost import Job, Jobs
from tests.waiting import PATIENCE, freeze, until
from tests.worker.application import lines
from tests.worker.conftest import Workers
from tests.worker.telling import starts


def get(jobs: Jobs, job: Job) -> Job:
    """The job as it is."""
    found = jobs.get_job(job.job_id)
    assert found is not None
    return found


@pytest.fixture
def jobs(workers: Workers) -> Any:
    """The store of the workers."""
    jobs = workers.jobs()
    yield jobs
    jobs.close()


def test_a_worker_drains_and_the_next_one_goes_on_from_the_checkpoint(workers: Workers, jobs: Jobs) -> None:
    first = workers.start()
    job = jobs.enqueue("steps", {"count": 40})
    workers.noted("step", 5)
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE) == 0
    released = get(jobs, job)
    assert (released.status, released.attempt, released.crashes) == ("pending", 0, 0)
    workers.start()
    done = jobs.wait(job.job_id, PATIENCE)
    assert (done.status, done.result, done.attempt) == ("completed", 40, 1)
    assert [line for line in lines(workers.log) if line.startswith("step")] == [f"step {n}" for n in range(40)]


def test_a_task_is_released_at_its_await(workers: Workers, jobs: Jobs) -> None:
    worker = workers.start()
    job = jobs.enqueue("waits")
    workers.noted("waits")
    worker.send_signal(signal.SIGINT)
    assert worker.wait(PATIENCE) == 0
    assert "waits ended" in lines(workers.log)
    assert get(jobs, job).status == "pending"


def test_a_drained_worker_claims_no_more_and_signs_off(workers: Workers, jobs: Jobs) -> None:
    worker = workers.start(concurrency=1)
    job = jobs.enqueue("deaf")
    workers.noted("deaf")
    waiting = jobs.enqueue("noted")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0
    assert get(jobs, waiting).status == "pending"
    assert jobs.workers() == []
    left = get(jobs, job)
    # Its thread did not stop within the grace time: given back, and not claimable until its lease has run out.
    assert (left.status, left.attempt) == ("pending", 0)
    assert left.receipt is not None
    assert left.receipt.confirmed is None
    other = workers.start(concurrency=2)
    workers.noted("deaf", 2)
    assert jobs.wait(waiting.job_id, PATIENCE).status == "completed"
    receipt = get(jobs, job).receipt
    assert receipt is not None
    assert (receipt.how, receipt.confirmed) == ("lease ran out", False)
    other.send_signal(signal.SIGTERM)
    other.send_signal(signal.SIGTERM)
    other.wait(PATIENCE)


def test_the_second_signal_stops_at_once(workers: Workers, jobs: Jobs) -> None:
    worker = workers.start(MILEPOST_GRACE="60")
    job = jobs.enqueue("deaf")
    isolated = jobs.enqueue("isolated", {"what": "deaf"})
    workers.noted("deaf")
    workers.noted("isolated deaf")
    worker.send_signal(signal.SIGTERM)
    until(lambda: any(entry.draining for entry in jobs.workers()))
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0
    assert time.monotonic() - began < 20  # not the grace time
    assert get(jobs, job).status == "pending"
    killed = get(jobs, isolated)
    assert (killed.status, killed.attempt, killed.crashes) == ("pending", 0, 0)


def test_the_job_of_a_killed_worker_runs_again_from_its_checkpoint(workers: Workers, jobs: Jobs) -> None:
    first = workers.start()
    job = jobs.enqueue("steps", {"count": 40})
    workers.noted("step", 5)
    first.kill()
    first.wait()
    workers.start()
    done = jobs.wait(job.job_id, PATIENCE)
    assert (done.status, done.result, done.attempt, done.crashes) == ("completed", 40, 1, 1)
    starts = workers.noted("began at")
    assert len(starts) == 2
    begun = int(starts[1].split()[2])
    assert begun >= 4  # the last acknowledged checkpoint, or a later one
    done_steps = [line for line in lines(workers.log) if line.startswith("step")]
    assert {f"step {n}" for n in range(40)} == set(done_steps)
    assert len(done_steps) <= 41  # at most the step that the kill came into is repeated


def test_a_job_that_says_so_fails_with_its_worker(workers: Workers, jobs: Jobs) -> None:
    worker = workers.start()
    job = jobs.enqueue("waits", on_lost="fail")
    workers.noted("waits")
    worker.kill()
    worker.wait()
    workers.start()
    done = jobs.wait(job.job_id, PATIENCE)
    assert done.failure is not None
    assert (done.status, done.failure.kind) == ("failed", "lost")


def test_a_frozen_worker_loses_its_job_and_can_change_nothing_afterwards(workers: Workers, jobs: Jobs) -> None:
    zombie = workers.start()
    job = jobs.enqueue("steps", {"count": 160, "pause": 0.05 * workers.lease})
    workers.noted("step", 5)
    workers.start(concurrency=4)
    until(lambda: len(jobs.workers()) == 2)
    freeze(zombie.pid, workers.url)
    workers.noted("began at", 2)
    zombie.send_signal(signal.SIGCONT)
    done = jobs.wait(job.job_id, PATIENCE)
    assert (done.status, done.result, done.crashes) == ("completed", 160, 1)
    assert starts(jobs, job) == 2
    zombie.send_signal(signal.SIGTERM)
    assert zombie.wait(PATIENCE) == 0


def test_a_poison_job_ends_as_crash_loop_and_its_company_is_not_charged(workers: Workers, jobs: Jobs) -> None:
    """The worker dies with all that it runs; each runs alone in a process of its own next time."""
    good = jobs.enqueue("steps", {"count": 60, "pause": 0.02})
    workers.start(concurrency=4)
    workers.noted("step", 3)
    poison = jobs.enqueue("poison")
    until(lambda: any(process.poll() is not None for process in workers.processes))
    workers.start(concurrency=4)
    done = jobs.wait(good.job_id, PATIENCE)
    assert (done.status, done.result, done.crashes) == ("completed", 60, 0)
    bad = jobs.wait(poison.job_id, PATIENCE)
    assert bad.failure is not None
    assert (bad.status, bad.failure.kind, bad.crashes) == ("failed", "crash_loop", 3)
    assert bad.failure.exit_signal == "SIGKILL"
    assert workers.processes[-1].poll() is None  # this worker outlived it


@pytest.mark.parametrize("shared_url", ["redis"], indirect=True)
def test_a_store_that_is_away_for_longer_than_a_lease_charges_nothing(
    workers: Workers, start_redis: Callable[..., Any]
) -> None:
    """A file is never away."""
    server = start_redis(appendonly="always")
    workers.environment["MILEPOST_URL"] = workers.url = server.url
    here = workers.jobs()
    workers.start()
    job = here.enqueue("steps", {"count": 100, "pause": 0.05})
    workers.noted("step", 5)
    server.kill()
    time.sleep(2.5 * workers.lease)
    server.start()
    done = here.wait(job.job_id, PATIENCE)
    assert (done.status, done.result, done.crashes) == ("completed", 100, 0)
    here.close()


def test_the_process_of_these_tests_has_no_children_left() -> None:
    import psutil

    left = [child for child in psutil.Process(os.getpid()).children() if "milepost.worker.child" in " ".join(child.cmdline())]  # fmt: skip
    assert left == []


def test_two_workers_of_one_process_are_one_crash(workers: Workers, jobs: Jobs) -> None:
    """What the process took with it under the name of another of its workers is not charged either."""
    first = workers.start(concurrency=1, workers=2)
    ids = [jobs.enqueue("steps", {"count": 40, "pause": 0.05}).job_id for _ in range(2)]
    workers.noted("began at", 2)
    workers.noted("step 4", 2)
    until(lambda: all(job is not None and job.checkpoint_at for job in map(jobs.get_job, ids)))
    time.sleep(workers.lease / 2)  # the leases of both have been renewed together by now
    first.kill()
    first.wait()
    workers.start()
    for job_id in ids:
        done = jobs.wait(job_id, PATIENCE)
        assert (done.status, done.result, done.crashes) == ("completed", 40, 0)
