"""The errors of a message of a task queue whose job does not run."""

from __future__ import annotations

from milepost.core.errors import InvalidInputError
from milepost.core.job import Job


class NotDelivered(Exception):
    """The job must not run by this delivery. `.job` is its record, or None if it is gone."""

    def __init__(self, job: Job | None) -> None:
        super().__init__("the job no longer exists" if job is None else f"job {job.job_id} is {job.status}")
        self.job = job


class BadParametersError(InvalidInputError):
    """The parameters in the record do not match the handler."""
