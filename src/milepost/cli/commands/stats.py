"""`milepost stats`, `failures`: count jobs by type and status, and failed jobs by cause."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.context import current, session_options
from milepost.cli.job_selection import all_jobs, filter_text
from milepost.cli.rendering.tables import print_records
from milepost.core.job import Job, JobStatus
from milepost.core.placement import is_waiting
from milepost.query.filters import duration
from milepost.query.statistics import failure_groups, nearest_rank, wait

HEADING = (
    "TYPE",
    "JOBS",
    "PENDING",
    "WAITING",
    "RUNNING",
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "SUCCESS",
    "RUN P50",
    "P95",
    "WAIT P50",
    "P95 ",
)


@click.command("stats")
@click.argument("terms", metavar="[FILTER...]", nargs=-1)
@session_options
def stats(terms: tuple[str, ...]) -> int:
    """Count jobs by type and status, with their run and wait times.

    Restrict the jobs with a filter: milepost stats created:1d
    """
    context = current()
    stats = type_stats(all_jobs(context, filter_text(terms)))

    def time_of(values: list[float], percent: int) -> str:
        value = percentile(values, percent)
        return formatting.duration(value) if value is not None else "-"

    print_records(
        context,
        (known.to_dict() for known in stats),
        HEADING,
        [
            (
                known.job_type, formatting.number(known.total), *(
                    formatting.number(count)
                    for count in (known.pending, known.waiting, known.running, known.completed, known.failed, known.cancelled)
                ),
                formatting.percent(known.success) if known.success is not None else "-",
                time_of(known.ran, 50), time_of(known.ran, 95), time_of(known.waited, 50), time_of(known.waited, 95),
            )
            for known in stats
        ],
        nothing="No jobs match." if terms else "No jobs yet.",
        right=HEADING[1:],
        optional=("P95 ", "WAIT P50", "CANCELLED", "P95", "PENDING", "WAITING", "RUNNING", "RUN P50", "COMPLETED"),
    )  # fmt: skip
    return exit_codes.OK


@dataclass(slots=True)
class TypeStats:
    """Statistics of one type: jobs by status, and the seconds that they ran and waited.

    `waiting` are the pending ones that wait for other jobs, for an answer, or are paused or asleep.
    """

    job_type: str
    pending: int = 0
    waiting: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    ran: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    def add(self, job: Job, now: int) -> None:
        """Add a job, at a time in microseconds since 1970."""
        setattr(self, job.status.value, getattr(self, job.status.value) + 1)
        self.waiting += is_waiting(job, now)
        waited, ran = wait(job), duration(job, now)
        if waited is None or ran is None:
            return
        self.waited.append(waited)
        if job.completed_at is not None and job.status is not JobStatus.CANCELLED:
            self.ran.append(ran)

    @property
    def total(self) -> int:
        """Return the number of jobs."""
        return self.pending + self.running + self.completed + self.failed + self.cancelled

    @property
    def success(self) -> float | None:
        """Return the completed share of the completed and failed jobs, or None without any."""
        ended = self.completed + self.failed
        return self.completed / ended if ended else None

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as JSON types."""
        counts = {status.value: getattr(self, status.value) for status in JobStatus}
        return {
            "job_type": self.job_type,
            "total": self.total,
            **counts,
            "waiting": self.waiting,
            "success": self.success,
            "ran_p50": percentile(self.ran, 50),
            "ran_p95": percentile(self.ran, 95),
            "waited_p50": percentile(self.waited, 50),
            "waited_p95": percentile(self.waited, 95),
        }


def type_stats(jobs: Iterable[Job]) -> list[TypeStats]:
    """Return the statistics by type, types with most jobs first."""
    types: dict[str, TypeStats] = {}
    now = time.time_ns() // 1000
    for job in jobs:
        types.setdefault(job.job_type, TypeStats(job.job_type)).add(job, now)
    return sorted(types.values(), key=lambda known: (-known.total, known.job_type))


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return a percentile by nearest rank, or None without values."""
    return sorted(values)[nearest_rank(len(values), percent) - 1] if values else None


@click.command("failures")
@click.argument("terms", metavar="[FILTER...]", nargs=-1)
@session_options
def failures(terms: tuple[str, ...]) -> int:
    """Group failed jobs by exception type and the last line of your own code.

    Use the filter of a group in other commands: milepost retry status:failed failure:ValueError@embed.py:41
    """
    context = current()
    groups = failure_groups(all_jobs(context, filter_text(("status:failed", *terms))))
    print_records(
        context,
        (group.to_dict() for group in groups),
        ("COUNT", "FAILURE", "TYPES", "FIRST", "LAST", "NEWEST MESSAGE"),
        [
            (
                formatting.number(group.count), group.group, ",".join(sorted(group.job_types)),
                formatting.clock(group.first_at, utc=context.utc), formatting.clock(group.last_at, utc=context.utc), group.message or "",
            )
            for group in groups
        ],
        nothing="No failed jobs match." if terms else "No failed jobs.",
        right=("COUNT",),
        optional=("FIRST", "TYPES", "LAST"),
    )  # fmt: skip
    if groups and not context.json and context.console.is_terminal:
        words = shlex.join(groups[0].q.split(" ", 1))
        context.console.print(f"\nList the largest group: milepost ls {words}")
    return exit_codes.OK
