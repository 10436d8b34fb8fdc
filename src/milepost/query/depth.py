"""How many jobs wait for workers, and for how long: by type and queue, as gauges for dashboards and autoscalers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from milepost.core.job import Job, JobStatus
from milepost.core.limits import LimitState
from milepost.core.placement import is_waiting, starts_at
from milepost.core.serialization import from_micros
from milepost.query.statistics import longest_wait
from milepost.stores.protocol import Select, Store
from milepost.stores.query import position

PAGE = 1000
MAX_READ = 10_000
"""How many pending jobs are read, the newest first. Older ones count as claimable."""
OLDEST_READ = 100


@dataclass(slots=True)
class Depth:
    """The pending jobs of one type in one queue. `oldest` is how long the first of the claimable ones has waited, in seconds."""

    claimable: int = 0
    scheduled: int = 0
    waiting: int = 0
    oldest: float = 0.0


async def read_depths(store: Store) -> dict[tuple[str, str], Depth]:
    """Return the depth of each (type, queue) that has jobs for workers. Types with none left have a depth of 0.

    `scheduled` are those whose time has not come: delayed, or before a retry. `waiting` ones wait for other jobs, for an answer,
    or are paused or asleep. Jobs of `create_job` and `track`
    wait for no worker and are not counted. Raises StoreError.
    """
    counts = await store.counts()
    depths = {(job_type, job_type): Depth() for job_type, _ in counts}
    now = await store.now()
    read: Counter[str] = Counter()
    after = None
    while sum(read.values()) < MAX_READ and (
        page := await store.select(Select(statuses=(JobStatus.PENDING,)), PAGE, after)
    ):
        _count(depths, page, now)
        read.update(job.job_type for job in page)
        after = position(page[-1])
        if len(page) < PAGE:
            break
    else:
        for (job_type, status), count in counts.items():
            if status == JobStatus.PENDING and count > read[job_type]:
                depths[job_type, job_type].claimable += count - read[job_type]
        _note_oldest(depths, await store.oldest(JobStatus.PENDING, OLDEST_READ), now)
    return depths


def _count(depths: dict[tuple[str, str], Depth], pending: Iterable[Job], now: int) -> None:
    claimable: list[Job] = []
    for job in pending:
        if job.run_by not in ("worker", "external"):
            continue
        depth = depths.setdefault(_key(job), Depth())
        if _may_start(job, now):
            depth.claimable += 1
            claimable.append(job)
        elif is_waiting(job, now):
            depth.waiting += 1
        else:
            depth.scheduled += 1
    _note_oldest(depths, claimable, now)


def _note_oldest(depths: dict[tuple[str, str], Depth], pending: Iterable[Job], now: int) -> None:
    at = from_micros(now)
    for job in pending:
        waits = longest_wait([job], at) if job.run_by in ("worker", "external") and _may_start(job, now) else None
        if waits is not None:
            depth = depths.setdefault(_key(job), Depth())
            depth.oldest = max(depth.oldest, (at - waits.since).total_seconds())


def _may_start(job: Job, now: int) -> bool:
    start = starts_at(job.record)
    return start is not None and start <= now


def _key(job: Job) -> tuple[str, str]:
    return job.job_type, job.queue or job.job_type


GAUGES = {
    "claimable": ("milepost_claimable", "Jobs that a worker may start now"),
    "scheduled": ("milepost_scheduled", "Pending jobs whose time has not come: delayed, or before a retry"),
    "waiting": ("milepost_waiting", "Pending jobs that wait for other jobs, for an answer, or are paused or asleep"),
    "oldest": ("milepost_oldest_claimable_seconds", "How long the oldest job that a worker may start now has waited"),
}


class LimitGauges:
    """Gauges by limit key, of keys with a limit, a rate or a closed gate."""

    def __init__(self, prometheus: Any, registry: Any) -> None:
        self._gauges = [
            prometheus.Gauge(name, text, ["limit_key"], registry=registry)
            for name, text in (
                ("milepost_limit_running", "Jobs that run under a limit, stopping ones included"),
                (
                    "milepost_limit_claimable",
                    "Jobs that wait for nothing but a worker, the limit, the rate or the gate",
                ),
            )
        ]

    def set(self, states: Iterable[LimitState]) -> None:
        """Replace the values of all limit keys."""
        for gauge in self._gauges:
            gauge.clear()
        for one in states:
            for gauge, value in zip(self._gauges, (one.leases, one.claimable), strict=True):
                gauge.labels(one.key).set(value)


class DepthGauges:
    """Gauges by job type and queue."""

    def __init__(self, prometheus: Any, registry: Any) -> None:
        labels = ["job_type", "queue"]
        self._gauges = {
            field: prometheus.Gauge(name, text, labels, registry=registry) for field, (name, text) in GAUGES.items()
        }

    def set(self, depths: dict[tuple[str, str], Depth]) -> None:
        """Replace the values of all types and queues."""
        for field, gauge in self._gauges.items():
            gauge.clear()
            for (job_type, queue), depth in depths.items():
                gauge.labels(job_type, queue).set(getattr(depth, field))
