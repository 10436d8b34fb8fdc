"""Find what an overview of all jobs shows: failed jobs in groups, and the pending job that has waited longest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from milepost.core.job import Job
from milepost.query.filters import failure_group


@dataclass(slots=True)
class FailureGroup:
    """Failed jobs with one cause. `message` and `job_id` are those of the newest job."""

    group: str
    first_at: datetime
    last_at: datetime
    message: str | None
    job_id: str
    count: int = 0
    job_types: set[str] = field(default_factory=set)

    @property
    def q(self) -> str:
        """The filter that selects these jobs."""
        if re.search(r'[\s"\\]', self.group) is None:
            return f"status:failed failure:{self.group}"
        escaped = re.sub(r'(["\\])', r"\\\1", self.group)
        return f'status:failed failure:"{escaped}"'

    def to_dict(self) -> dict[str, Any]:
        """Return the group as JSON types, with its exception type, its frame and the filter that selects it."""
        kind, _, frame = self.group.partition("@")
        return {
            "group": self.group,
            "type": kind,
            "frame": frame or None,
            "count": self.count,
            "first_at": self.first_at.isoformat(),
            "last_at": self.last_at.isoformat(),
            "message": self.message,
            "job_id": self.job_id,
            "job_types": sorted(self.job_types),
            "q": self.q,
        }


def failure_groups(jobs: Iterable[Job]) -> list[FailureGroup]:
    """Return groups of failed jobs, the largest first. Jobs that have not failed are ignored."""
    groups: dict[str, FailureGroup] = {}
    for job in jobs:
        name = failure_group(job)
        if name is None:
            continue
        at = job.completed_at or job.created_at
        group = groups.setdefault(name, FailureGroup(name, at, at, job.error, job.job_id))
        if at > group.last_at:
            group.last_at, group.message, group.job_id = at, job.error, job.job_id
        group.first_at = min(group.first_at, at)
        group.count += 1
        group.job_types.add(job.job_type)
    return sorted(groups.values(), key=lambda group: (-group.count, group.group))


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
