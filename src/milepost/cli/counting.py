"""What many jobs say together: failures by what went wrong, and types with their counts and durations.

Owns the arithmetic over lists of jobs, from a store or from a server alike; prints nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from milepost.core.job import Job, JobStatus


@dataclass(slots=True)
class FailureGroup:
    """Failed jobs with the same exception type and the same last frame of the user's own code."""

    group: str
    count: int
    first: datetime
    last: datetime
    message: str
    newest: str
    types: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types, with the filter that selects the group."""
        times = {"first": self.first.isoformat(), "last": self.last.isoformat()}
        return {**asdict(self), **times, "filter": self.filter}

    @property
    def filter(self) -> str:
        """The filter that selects these jobs."""
        if re.search(r'[\s"\\]', self.group) is None:
            return f"status:failed failure:{self.group}"
        escaped = re.sub(r'(["\\])', r"\\\1", self.group)
        return f'status:failed failure:"{escaped}"'

    @property
    def words(self) -> str:
        """The same as the words of a command, for a shell."""
        status, _, failure = self.filter.partition(" ")
        return shlex.join((status, failure))


def failure_groups(jobs: Iterable[Job]) -> list[FailureGroup]:
    """Group failed jobs, the largest group first."""
    from milepost.stores.filters import failure_group

    groups: dict[str, FailureGroup] = {}
    for job in jobs:
        name = failure_group(job)
        if name is None:
            continue
        at = job.completed_at or job.created_at
        known = groups.get(name)
        if known is None:
            known = groups[name] = FailureGroup(name, 0, at, at, job.error or "", job.job_id)
        if at >= known.last:
            known.last, known.message, known.newest = at, job.error or "", job.job_id
        known.first = min(known.first, at)
        known.count += 1
        if job.job_type not in known.types:
            known.types.append(job.job_type)
    return sorted(groups.values(), key=lambda group: (-group.count, group.group))


@dataclass(slots=True)
class TypeStats:
    """One type: how many jobs of each status, and how long they waited and ran (seconds; None when none has)."""

    job_type: str
    pending: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    ran: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    def add(self, job: Job) -> None:
        """Count a job."""
        setattr(self, job.status.value, getattr(self, job.status.value) + 1)
        if job.started_at is None:
            return
        self.waited.append((job.started_at - job.created_at).total_seconds())
        if job.completed_at is not None and job.status is not JobStatus.CANCELLED:
            self.ran.append((job.completed_at - job.started_at).total_seconds())

    @property
    def total(self) -> int:
        """All jobs of the type."""
        return self.pending + self.running + self.completed + self.failed + self.cancelled

    @property
    def success(self) -> float | None:
        """The share of completed ones among those that completed or failed."""
        ended = self.completed + self.failed
        return self.completed / ended if ended else None

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON types."""
        counts = {status.value: getattr(self, status.value) for status in JobStatus}
        return {
            "job_type": self.job_type,
            "total": self.total,
            **counts,
            "success": self.success,
            "ran_p50": percentile(self.ran, 0.5),
            "ran_p95": percentile(self.ran, 0.95),
            "waited_p50": percentile(self.waited, 0.5),
            "waited_p95": percentile(self.waited, 0.95),
        }


def type_stats(jobs: Iterable[Job]) -> list[TypeStats]:
    """The numbers of each type, the one with the most jobs first."""
    types: dict[str, TypeStats] = {}
    for job in jobs:
        types.setdefault(job.job_type, TypeStats(job.job_type)).add(job)
    return sorted(types.values(), key=lambda known: (-known.total, known.job_type))


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which that share lies (nearest rank); None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
