"""Running jobs whose lease has ended: their worker is gone, and no process has recovered them since."""

from __future__ import annotations

from datetime import UTC, datetime

from milepost.cli import formatting
from milepost.core.job import Job

NOTICE_SECONDS = 60.0
"""How long a lease has ended before a job is shown so. Until then a sweep may just not have come, or clocks may differ."""


def with_ended_lease(job: Job, now: datetime | None = None) -> Job:
    """Return the job. If its lease ended long ago, its activity says so."""
    ended = job.lease_expires_at if job.status == "running" else None
    now = now or datetime.now(UTC)
    if ended is None or (now - ended).total_seconds() < NOTICE_SECONDS:
        return job
    text = f"Lease ended {formatting.age(ended, now)} and no process has recovered the job; start a worker or a server"
    return Job.stored(job.job_id, job.record)._say(text)
