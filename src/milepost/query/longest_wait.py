"""Find the pending job that has waited longest for its start."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from milepost.core.job import Job

MAX_READ = 100
"""How many of the oldest pending jobs are read. Jobs whose start time has not come do not wait yet."""


class LongestWait(NamedTuple):
    """A pending job, and since when it could have started."""

    job: Job
    since: datetime


def longest_wait(pending: Iterable[Job], now: datetime) -> LongestWait | None:
    """Return the job that has waited longest among some pending jobs, or None if none of them could start yet."""
    waits = [LongestWait(job, since) for job in pending if (since := _waiting_since(job)) is not None and since <= now]
    return min(waits, key=lambda wait: wait.since, default=None)


def _waiting_since(job: Job) -> datetime | None:
    """Return when a job was created, may start at the earliest, or was queued again; the latest of these."""
    ended = job.attempts[-1].ended_at if job.attempts else None
    return max((at for at in (job.created_at, job.not_before, ended) if at is not None), default=None)
