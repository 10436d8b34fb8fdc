"""The errors for requests that the current record of a job does not allow."""

from __future__ import annotations

import math
from typing import Any

from milepost.core.errors import (
    DuplicateJobError,
    IllegalTransitionError,
    JobNotFoundError,
    LeaseHeldError,
    RejectedError,
    ResultNotSerialisableError,
    TooManyRequestsError,
)
from milepost.core.job import Job, JobStatus
from milepost.core.transitions.operation_ids import CALLERS_KEPT, CALLERS_SECONDS
from milepost.stores.protocol import WriteResult


def rejection_error(outcome: WriteResult, job_id: str, verb: str, target: JobStatus | None = None) -> RejectedError:
    """Return the error for a refused change, from the current record."""
    job = outcome.job
    if outcome.wait:
        after = math.ceil(outcome.wait / 1_000_000)
        text = f"Job {job_id} was changed {CALLERS_KEPT} times within {CALLERS_SECONDS} s; try again in {after} s"
        return TooManyRequestsError(text, after, job=job)
    if job is None:
        return JobNotFoundError(job_id)
    if verb == "update" and job.run_by != "manual" and not job.is_terminal:
        who = f"worker {job.worker}" if job.worker else "a worker" if job.run_by != "track" else "its track() block"
        return LeaseHeldError(f"Job {job_id} is run by {who}; callers may only cancel it", job=job)
    if (
        verb == "retry"
        and job.status in (JobStatus.FAILED, JobStatus.CANCELLED)
        and job.run_by in ("worker", "external")
    ):
        return DuplicateJobError(f"Cannot retry job {job_id}: a newer job has its unique key", job=job)
    if verb == "retry" and job.run_by in ("manual", "track") and job.is_terminal:
        remedy = "create a new job" if job.run_by == "manual" else "start it again with its unique_key"
        return IllegalTransitionError(f"Cannot retry job {job_id}: it was not submitted to a worker; {remedy}", job=job)
    to = f" to {target}" if target is not None and not job.is_terminal else ""
    return IllegalTransitionError(f"Cannot {verb} job with status {job.status}{to}", job=job)


def result_of(job: Job) -> Any:
    """Return the result of a completed job. Raises as `AsyncJobManager.result`."""
    if job.result_error is not None:
        raise ResultNotSerialisableError(
            f"Job {job.job_id} completed without its result: {job.result_error}", job.result_text or "", job=job
        )
    if job.status is not JobStatus.COMPLETED:
        why = f" ({job.error})" if job.error else "" if job.is_terminal else "; wait() returns when it has ended"
        raise RejectedError(f"Job {job.job_id} has no result: it is {job.status}{why}", job=job)
    return job.result
