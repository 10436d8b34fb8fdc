"""Why a run is stopped, from its record and the state of its lease."""

from __future__ import annotations

from milepost.core.errors import JobCancelled, JobReleased, JobTimedOut, LeaseLost, RunStop
from milepost.core.job import Job, JobStatus


def stop_reason(job: Job | None, token: str, state: str) -> RunStop:
    """Return the RunStop for a run, from its record and the state of its lease."""
    if job is None:
        return JobCancelled("the job was deleted") if state == "stopping" else LeaseLost("the job no longer exists")
    record = job.record
    if record.get("stop_token") != token:
        if state == "stopping":  # the record was deleted and its id used again
            return JobCancelled("the job was deleted")
        if record.get("token") == token:  # the record is a leftover, e.g. of a database file that was deleted
            return LeaseLost(f"the store no longer has job {job.job_id}")
        return LeaseLost(f"job {job.job_id} is {job.status} in another run")
    if job.status is JobStatus.CANCELLED:
        why = record.get("stop_reason")
        return JobCancelled(f"cancelled: {why}" if why else "cancelled")
    if record.get("stop_reason") == "timeout":
        return JobTimedOut("timeout exceeded")
    return JobReleased("worker is shutting down")
