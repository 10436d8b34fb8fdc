"""Worker processes under real signals: drained, stopped at once, killed, frozen; on the stores that processes share."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from milepost import Jobs
from tests.waiting import PATIENCE, current, freeze, until
from tests.worker.application import lines
from tests.worker.conftest import ROOT, Workers
from tests.worker.job_assertions import starts

pytestmark = pytest.mark.timing


@pytest.fixture
def jobs(workers: Workers) -> Any:
    """Return the store of the workers."""
    jobs = workers.jobs()
    yield jobs
    jobs.close()


def test_next_worker_continues_from_checkpoint_after_drain(workers: Workers, jobs: Jobs) -> None:
    first = workers.start(MILEPOST_GRACE="60")
    job = jobs.enqueue("steps", {"count": 40, "pause": 0.3})  # a busy machine too signals it before its end
    workers.noted("step", 5)
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE) == 0
    released = current(jobs, job)
    assert (released.status, released.attempt, released.crashes) == ("pending", 0, 0)
    workers.start(STEP_PAUSE="0")
    done = jobs.wait(job.job_id, PATIENCE)
    assert (done.status, done.result, done.attempt) == ("completed", 40, 1)
    assert [line for line in lines(workers.log) if line.startswith("step")] == [f"step {n}" for n in range(40)]


def test_drain_releases_task_at_await(workers: Workers, jobs: Jobs) -> None:
    worker = workers.start()
    job = jobs.enqueue("waits")
    workers.noted("waits")
    worker.send_signal(signal.SIGINT)
    assert worker.wait(PATIENCE) == 0
    assert "waits ended" in lines(workers.log)
    assert current(jobs, job).status == "pending"


def test_second_interrupt_of_a_block_with_workers_gives_their_jobs_back(workers: Workers, jobs: Jobs) -> None:
    """The process ended at once and its jobs ran on by their records, until their leases expired: a crash."""
    program = """
import signal, threading, time
from tests.worker.application import jobs, note

def watch(worker):
    while not worker.is_stopping:
        time.sleep(0.01)
    note("draining")

with jobs.run_workers(concurrency=1) as group:
    threading.Thread(target=watch, args=group.workers, daemon=True).start()
    note("inside")
    signal.pause()
"""
    process = workers.start_program(program, MILEPOST_GRACE="600")
    job = jobs.enqueue("deaf")
    workers.noted("deaf")
    workers.noted("inside")
    process.send_signal(signal.SIGINT)
    workers.noted("draining")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) != 0
    left = current(jobs, job)
    assert (left.status, left.attempt, left.crashes) == ("pending", 0, 0)
    assert jobs.workers() == []


def test_drained_worker_claims_nothing_and_unregisters(workers: Workers, jobs: Jobs) -> None:
    worker = workers.start(concurrency=1)
    job = jobs.enqueue("deaf")
    workers.noted("deaf")
    waiting = jobs.enqueue("noted")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0
    assert current(jobs, waiting).status == "pending"
    assert jobs.workers() == []
    left = current(jobs, job)
    # Its thread did not stop within the grace time: given back, and not claimable until its lease has run out.
    assert (left.status, left.attempt) == ("pending", 0)
    assert left.receipt is not None
    assert left.receipt.confirmed is None
    other = workers.start(concurrency=2)
    workers.noted("deaf", 2)
    assert jobs.wait(waiting.job_id, PATIENCE).status == "completed"
    receipt = current(jobs, job).receipt
    assert receipt is not None
    assert (receipt.how, receipt.confirmed) == ("lease_expired", False)
    other.send_signal(signal.SIGTERM)
    other.send_signal(signal.SIGTERM)
    other.wait(PATIENCE)


def test_second_signal_stops_at_once(workers: Workers, jobs: Jobs) -> None:
    worker = workers.start(MILEPOST_GRACE="600")
    job = jobs.enqueue("deaf")
    isolated = jobs.enqueue("isolated", {"what": "deaf"})
    workers.noted("deaf")
    workers.noted("isolated deaf")
    worker.send_signal(signal.SIGTERM)
    until(lambda: any(entry.draining for entry in jobs.workers()))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0  # not the grace time
    assert current(jobs, job).status == "pending"
    killed = current(jobs, isolated)
    assert (killed.status, killed.attempt, killed.crashes) == ("pending", 0, 0)


def unread_bytes(pipe: Any) -> int:
    """Return how many bytes wait in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe.fileno(), termios.FIONREAD, count)
    return count[0]


def test_signal_drains_a_worker_that_waits_for_the_reader_of_its_log(workers: Workers, jobs: Jobs) -> None:
    """Regression: the signal handler logged, which fails within the write of another line. The signal was lost."""
    program = """
import logging
logging.basicConfig(level="INFO")
from milepost import AsyncRun
from milepost.worker import run_worker
from tests.worker.application import jobs, note

@jobs.job("talks")
async def talks(run: AsyncRun) -> None:
    note("talks")
    logging.getLogger("talks").info("x" * 1_000_000)  # more than a pipe takes

raise SystemExit(run_worker(jobs))
"""
    environment = {**workers.environment, "PYTHONUNBUFFERED": ""}
    worker = subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=ROOT, stderr=subprocess.PIPE)
    workers.processes.append(worker)
    jobs.enqueue("talks")
    workers.noted("talks")
    until(lambda: unread_bytes(worker.stderr) > 60_000)  # the pipe is full
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 0
    assert b"drains" in said
    assert b"Traceback" not in said


def test_job_of_killed_worker_reruns_from_checkpoint(workers: Workers, jobs: Jobs) -> None:
    first = workers.start()
    job = jobs.enqueue("steps", {"count": 40, "pause": 0.3})
    workers.noted("step", 5)
    first.kill()
    first.wait()
    workers.start(STEP_PAUSE="0")
    done = jobs.wait(job.job_id, PATIENCE)
    assert (done.status, done.result, done.attempt, done.crashes) == ("completed", 40, 1, 1)
    starts = workers.noted("began at")
    assert len(starts) == 2
    begun = int(starts[1].split()[2])
    assert begun >= 4  # the last acknowledged checkpoint, or a later one
    done_steps = [line for line in lines(workers.log) if line.startswith("step")]
    assert {f"step {n}" for n in range(40)} == set(done_steps)
    assert len(done_steps) <= 41  # at most the step that the kill came into is repeated


def test_on_lost_fail_fails_job_of_killed_worker(workers: Workers, jobs: Jobs) -> None:
    worker = workers.start()
    job = jobs.enqueue("waits", on_lost="fail")
    workers.noted("waits")
    worker.kill()
    worker.wait()
    workers.start()
    done = jobs.wait(job.job_id, PATIENCE)
    assert done.failure is not None
    assert (done.status, done.failure.kind) == ("failed", "lost")


def test_frozen_worker_loses_job_and_cannot_write(workers: Workers, jobs: Jobs) -> None:
    zombie = workers.start()
    job = jobs.enqueue("steps", {"count": 100, "pause": 0.05 * workers.lease})
    workers.noted("step", 5)
    workers.start(concurrency=4)
    until(lambda: len(jobs.workers()) == 2)
    freeze(zombie.pid, workers.url)
    workers.noted("began at", 2)
    zombie.send_signal(signal.SIGCONT)
    done = jobs.wait(job.job_id, PATIENCE)
    assert (done.status, done.result, done.crashes) == ("completed", 100, 1)
    assert starts(jobs, job) == 2
    zombie.send_signal(signal.SIGTERM)
    assert zombie.wait(PATIENCE) == 0


def test_poison_job_ends_as_crash_loop_others_uncharged(workers: Workers, jobs: Jobs) -> None:
    """The worker dies with all its jobs; each then runs in a child process."""
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
    assert bad.error == bad.failure.message
    assert bad.error.startswith("crashed 3 times; last: ")
    assert workers.processes[-1].poll() is None  # this worker outlived it


@pytest.mark.parametrize("shared_url", ["redis"], indirect=True)
def test_outage_longer_than_lease_charges_nothing(workers: Workers, start_redis: Callable[..., Any]) -> None:
    """There is no outage of a file."""
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


def test_no_child_processes_are_left() -> None:
    import psutil

    left = [child for child in psutil.Process(os.getpid()).children() if "milepost.worker.child_main" in " ".join(child.cmdline())]  # fmt: skip
    assert left == []


def test_two_workers_of_one_process_are_one_crash(workers: Workers, jobs: Jobs) -> None:
    """A crash of one process is not charged either if several of its workers had jobs."""
    first = workers.start(concurrency=1, workers=2)
    ids = [jobs.enqueue("steps", {"count": 40, "pause": 0.1 * workers.lease}).job_id for _ in range(2)]
    workers.noted("began at", 2)
    workers.noted("step 4", 2)
    until(lambda: all(job is not None and job.checkpoint_at for job in map(jobs.get_job, ids)))
    time.sleep(workers.lease / 2)  # the leases of both have been renewed together by now
    first.kill()
    first.wait()
    workers.start(STEP_PAUSE="0")
    for job_id in ids:
        done = jobs.wait(job_id, PATIENCE)
        assert (done.status, done.result, done.crashes) == ("completed", 40, 0)


def test_sigterm_to_all_processes_gives_isolated_jobs_back(workers: Workers, jobs: Jobs) -> None:
    """Regression: systemd sends it to all processes of a unit by default, and each deploy charged these jobs with a crash."""
    first = workers.start(MILEPOST_GRACE="60")
    job = jobs.enqueue("isolated", {"what": "tidy"})
    workers.noted("tidy is looping")
    everyone = [*psutil.Process(first.pid).children(recursive=True), psutil.Process(first.pid)]
    assert len(everyone) > 1
    for process in everyone:  # the child first: its worker has no signal yet
        process.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE) == 0
    released = current(jobs, job)
    assert (released.status, released.attempt, released.crashes) == ("pending", 0, 0)
