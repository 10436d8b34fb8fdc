"""Signals between handlers and their tests, and waiting for the final state of a job."""

from __future__ import annotations

import threading

from milepost import Job, Jobs


def ended(jobs: Jobs, job: Job) -> Job:
    """Return the job in its final state: ended, and for a cancel with a closed receipt."""
    for _ in jobs.watch(job.job_id):
        pass
    found = jobs.get_job(job.job_id)
    assert found is not None
    return found


def kinds(jobs: Jobs, job: Job) -> list[str]:
    """Return the kinds of a job's stored events, without starts that were returned before they began, as on a busy
    machine.
    """
    found: list[str] = []
    for event in jobs.events(job.job_id):
        if event.kind == "released" and found[-1:] == ["running"]:
            found.pop()
        else:
            found.append(event.kind)
    return found


def starts(jobs: Jobs, job: Job) -> int:
    """Return how often the code of a job was started."""
    return kinds(jobs, job).count("running")


class Signals:
    """Signals between a handler and its test."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.let_go = threading.Event()
        self.calls = 0
