"""A task queue that runs messages in this process, on command of the test."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from milepost import Job, Jobs
from milepost.core.errors import RunStop
from milepost.integrations import TaskQueueUnavailableError
from milepost.worker.dispatcher import Dispatcher
from milepost.worker.handlers import Application
from milepost.worker.message_delivery import deliver
from tests.waiting import until


class DirectTaskQueue:
    """A task queue that delivers a message before `send` returns, like a very fast worker; with `down`, never."""

    name = "here"
    lost_after = 3600.0

    def __init__(self) -> None:
        self.down = False
        self.sent: list[str] = []
        self.requeued: list[str] = []
        self.closed = 0

    def serve(self, app: Application, dispatcher: Dispatcher) -> None:
        """Do nothing."""
        self.app, self.dispatcher = app, dispatcher

    def send(self, job: Job) -> None:
        """Run it here and now."""
        if self.down:
            raise TaskQueueUnavailableError("no broker")
        self.sent.append(job.job_id)
        with suppress(Exception, RunStop):  # the record has the outcome
            deliver(self.app, self, job.job_id, job.job_type)

    def requeue(self, job_id: str, job_type: str, delay: float) -> None:
        """Keep it for the test."""
        if self.down:
            raise TaskQueueUnavailableError("no broker")
        self.requeued.append(job_id)

    def stop(self, message: Any, *, hard: bool) -> str | None:
        """Return None: this task queue cannot stop code."""
        return None

    def is_exit(self, error: BaseException) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Count."""
        self.closed += 1


def ended(jobs: Jobs, job_id: str) -> Job:
    """Wait until a job has ended, and return it."""

    def found() -> Job | None:
        job = jobs.get_job(job_id)
        return job if job is not None and job.is_terminal else None

    job: Job = until(found)
    return job
