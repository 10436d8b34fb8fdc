"""How a job appears through other interfaces: one table of statuses, times and errors for each, in their own words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from milepost.core.job import Job
from milepost.core.values import FailureKind, JobStatus

Word = TypeVar("Word", str, int)

CANCELLED = "cancelled"
"""The key of the error of a cancelled job, for interfaces that count a cancel as a failure."""


@dataclass(frozen=True, slots=True)
class Interface(Generic[Word]):
    """An interface to jobs: its word for each status, the moment behind each of its times, and its word for each error.

    `errors` has the word for a failure by its kind. `failed` has the status of a failed job, by the kind of its failure,
    where it is not the one in `statuses`.
    """

    statuses: Mapping[JobStatus, str]
    times: Mapping[str, str]
    errors: Mapping[str, Word]
    failed: Mapping[str, str] = field(default_factory=dict)

    def status_of(self, job: Job) -> str:
        """Return the status of a job in the words of the interface."""
        status = self.statuses[job.status]
        if job.status is JobStatus.FAILED and job.failure is not None:
            return self.failed.get(job.failure.kind, status)
        return status

    def times_of(self, job: Job) -> dict[str, datetime | None]:
        """Return the times of a job under the names of the interface."""
        return {name: _MOMENTS[moment](job) for name, moment in self.times.items()}

    def error_of(self, kind: str) -> Word:
        """Return the word for a failure of a kind; one that a later release adds reads as an error of the code."""
        return self.errors.get(kind, self.errors[FailureKind.ERROR])


_MOMENTS: Mapping[str, Callable[[Job], datetime | None]] = {
    "creation": lambda job: job.created_at,
    "update": lambda job: job.updated_at or job.created_at,
    "first start": lambda job: job.attempts[0].started_at if job.attempts else None,
    "last start": lambda job: job.attempts[-1].started_at if job.attempts else None,
    "end": lambda job: job.completed_at if job.is_terminal else None,
}

DJANGO = Interface(
    statuses={
        JobStatus.PENDING: "READY",
        JobStatus.RUNNING: "RUNNING",
        JobStatus.COMPLETED: "SUCCESSFUL",
        JobStatus.FAILED: "FAILED",
        JobStatus.CANCELLED: "FAILED",
    },
    times={
        "enqueued_at": "creation",
        "started_at": "first start",
        "last_attempted_at": "last start",
        "finished_at": "end",
    },
    errors={
        FailureKind.ERROR: "builtins.RuntimeError",
        FailureKind.TIMEOUT: "milepost.JobTimedOut",
        FailureKind.EXPIRED: "milepost.JobTimedOut",
        FailureKind.LOST: "milepost.LeaseLost",
        FailureKind.KILLED: "milepost.LeaseLost",
        FailureKind.CRASH_LOOP: "milepost.LeaseLost",
        FailureKind.BAD_PARAMETERS: "milepost.InvalidInputError",
        CANCELLED: "milepost.JobCancelled",
    },
)
"""Tasks of Django. It has no status for a cancelled task: the error says that it was."""

MCP = Interface(
    statuses={
        JobStatus.PENDING: "working",
        JobStatus.RUNNING: "working",
        JobStatus.COMPLETED: "completed",
        JobStatus.FAILED: "failed",
        JobStatus.CANCELLED: "cancelled",
    },
    # What the tool itself reports is a result of the call, with an error in it.
    failed={FailureKind.ERROR: "completed", FailureKind.TIMEOUT: "completed"},
    times={"createdAt": "creation", "lastUpdatedAt": "update"},
    errors={**dict.fromkeys(FailureKind, -32603), FailureKind.BAD_PARAMETERS: -32602},
)
"""Tasks of the Model Context Protocol. Its errors are codes of JSON-RPC: internal error, and invalid parameters."""
