"""A rolling upgrade: workers of this release and of a newer one share a store and take over from each other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from milepost import Job, Jobs
from tests.chaos.newer_release import ZONE
from tests.waiting import PATIENCE, until
from tests.worker.conftest import ROOT, Workers
from tests.worker.job_assertions import kinds, starts

pytestmark = pytest.mark.timing


def start_newer(workers: Workers) -> subprocess.Popen[bytes]:
    """Start a worker of the newer release."""
    process = subprocess.Popen([sys.executable, "-m", "tests.chaos.newer_release"], env=workers.environment, cwd=ROOT)
    workers.processes.append(process)
    return process


def status(jobs: Jobs, job: Job) -> str:
    """Return the status of a job."""
    found = jobs.get_job(job.job_id)
    assert found is not None
    return found.status.value


def test_newer_job_type_is_left_to_newer_worker(workers: Workers, jobs: Jobs) -> None:
    workers.start()
    for text in ("a", "b"):
        new, known = jobs.enqueue("brand-new", {"text": text}), jobs.enqueue("noted", {"text": text})
        assert jobs.wait(known.job_id, PATIENCE).status == "completed"
        assert status(jobs, new) == "pending"
    newer = start_newer(workers)
    for job in jobs.list_jobs(job_type="brand-new"):
        assert jobs.wait(job.job_id, PATIENCE).result == {"pid": newer.pid}


def test_older_release_keeps_newer_fields(workers: Workers, jobs: Jobs) -> None:
    newer = start_newer(workers)
    job = jobs.enqueue("steps", {"count": 200, "pause": workers.lease / 20})  # longer than the older one takes to start
    workers.noted("step", 5)
    until(lambda: any(known.name == "brand-new" for known in jobs.job_types()))
    assert [entry.pid for entry in jobs.workers()] == [newer.pid]
    older = workers.start(STEP_PAUSE="0")
    until(lambda: {entry.pid for entry in jobs.workers()} == {newer.pid, older.pid})
    newer.kill()
    newer.wait()
    done = jobs.wait(job.job_id, PATIENCE)
    assert (done.status, done.result, done.attempt) == ("completed", 200, 1)
    assert starts(jobs, job) >= 2  # the older one, too, may lose a lease on a busy machine
    assert done.worker is not None
    assert f":{older.pid}:" in done.worker
    assert done.record["zone"] == ZONE, "the older release has lost a field of the newer one"
    first, *others = [event.data.get("zone") for event in jobs.events(job.job_id) if event.kind == "running"]
    assert (first, set(others)) == (ZONE, {None})
    assert kinds(jobs, job)[-1] == "completed"


def test_deploy_moves_running_jobs_to_newer_release(workers: Workers, jobs: Jobs) -> None:
    older = workers.start()
    made = [jobs.enqueue("steps", {"count": 40}) for _ in range(3)]
    workers.noted("began at 0", 3)
    workers.noted("step 5")
    newer = start_newer(workers)
    until(lambda: any(entry.pid == newer.pid for entry in jobs.workers()))
    older.terminate()
    assert older.wait(PATIENCE) == 0
    for job in made:
        done = jobs.wait(job.job_id, PATIENCE)
        assert (done.status, done.result, done.attempt, done.crashes) == ("completed", 40, 1, 0)
