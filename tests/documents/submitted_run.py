"""A run of a job that was submitted over HTTP."""

from __future__ import annotations

from milepost.core.job import Job
from tests.documents.watched_run import WatchedRun


class SubmittedRun(WatchedRun):
    """A run whose record has the origin `api`."""

    def __init__(self, labels: dict[str, str] | None = None) -> None:
        super().__init__(labels=labels)
        self._job = Job.stored(self.job_id, {**self._job.record, "origin": "api"})
