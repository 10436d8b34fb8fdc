"""A rolling upgrade: workers of this release and of one to come share a store, and take over from one another."""

from __future__ import annotations

import subprocess
import sys

from milepost import Job, Jobs
from tests.chaos.newer import ZONE
from tests.waiting import PATIENCE, until
from tests.worker.conftest import ROOT, Workers
from tests.worker.telling import kinds, starts


def start_newer(workers: Workers) -> subprocess.Popen[bytes]:
    """Start a worker of the release to come."""
    process = subprocess.Popen([sys.executable, "-m", "tests.chaos.newer"], env=workers.environment, cwd=ROOT)
    workers.processes.append(process)
    return process


def status(jobs: Jobs, job: Job) -> str:
    """The status of a job."""
    found = jobs.get_job(job.job_id)
    assert found is not None
    return found.status.value


def test_a_type_that_only_the_newer_release_has_is_left_to_it(workers: Workers, jobs: Jobs) -> None:
    workers.start()
    for text in ("a", "b"):
        new, known = jobs.enqueue("brand-new", {"text": text}), jobs.enqueue("noted", {"text": text})
        assert jobs.wait(known.job_id, PATIENCE).status == "completed"
        assert status(jobs, new) == "pending"
    newer = start_newer(workers)
    for job in jobs.list_jobs(job_type="brand-new"):
        assert jobs.wait(job.job_id, PATIENCE).result == {"pid": newer.pid}


def test_what_the_newer_release_writes_is_read_and_kept_by_the_older_one(workers: Workers, jobs: Jobs) -> None:
    newer = start_newer(workers)
    job = jobs.enqueue("steps", {"count": 60, "pause": workers.lease / 20})
    workers.noted("step", 5)
    until(lambda: any(known.name == "brand-new" for known in jobs.job_types()))
    assert [entry.pid for entry in jobs.workers()] == [newer.pid]
    older = workers.start()
    until(lambda: {entry.pid for entry in jobs.workers()} == {newer.pid, older.pid})
    newer.kill()
    newer.wait()
    done = jobs.wait(job.job_id, PATIENCE)
    assert (done.status, done.result, done.attempt, starts(jobs, job)) == ("completed", 60, 1, 2)
    assert done.worker is not None
    assert f":{older.pid}:" in done.worker
    assert done.record["zone"] == ZONE, "the older release has lost a field of the newer one"
    assert [event.data.get("zone") for event in jobs.events(job.job_id) if event.kind == "running"] == [ZONE, None]
    assert kinds(jobs, job)[-1] == "completed"


def test_a_deploy_hands_what_runs_from_the_older_release_to_the_newer_one(workers: Workers, jobs: Jobs) -> None:
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
