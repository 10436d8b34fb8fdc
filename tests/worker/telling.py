"""What handlers and their tests tell each other, and a job with its last word."""

from __future__ import annotations

import threading

from milepost import Job, Jobs


def ended(jobs: Jobs, job: Job) -> Job:
    """The job with its last word: its end, and for a cancel the receipt."""
    for _ in jobs.watch(job.job_id):
        pass
    found = jobs.get_job(job.job_id)
    assert found is not None
    return found


def kinds(jobs: Jobs, job: Job) -> list[str]:
    """The kinds of a job's kept events, without the starts that were given back before they began, as on a busy machine."""
    found: list[str] = []
    for event in jobs.events(job.job_id):
        if event.kind == "released" and found[-1:] == ["running"]:
            found.pop()
        else:
            found.append(event.kind)
    return found


def starts(jobs: Jobs, job: Job) -> int:
    """How often the code of a job was started."""
    return kinds(jobs, job).count("running")


class Signals:
    """What a handler and its test tell each other."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.let_go = threading.Event()
        self.calls = 0
