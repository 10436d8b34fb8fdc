"""The history of a soak, which the checker reads: the ledger, the answers to clients, the feed, and the final store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from milepost.core.events import Event
from milepost.core.job import Job
from milepost.stores.protocol import Position, Select, Store
from milepost.stores.sync_bridge import run_sync
from tests.chaos.ledger import Line

PAGE = 500
STATUSES = ("pending", "running", "completed", "failed", "cancelled")
T = TypeVar("T")


@dataclass(frozen=True)
class Index:
    """What one list of the store shows, and what the store counts in it."""

    select: Select
    ids: tuple[str, ...]
    count: int | None


@dataclass
class History:
    """All that the checker looks at. `feed` has every event of the namespace in the order in which they were written."""

    runs: list[Line] = field(default_factory=list)
    """start, step, acked, end: by handlers, with job and fence."""
    calls: list[Line] = field(default_factory=list)
    """submit, cancel, delete, retry: by clients, with job and `phase` asked, done, refused or unknown."""
    feed: list[Event] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    events: dict[str, list[Event]] = field(default_factory=dict)
    indexes: list[Index] = field(default_factory=list)
    draining_leases: list[tuple[str, str, int]] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    """Processes of the soak that are left after its workers have ended."""
    limits: Mapping[str, int] = field(default_factory=dict)
    per_partition: Mapping[str, int] = field(default_factory=dict)
    """The most leases of each partition, by type."""
    deaths: list[tuple[int, int]] = field(default_factory=list)
    """SIGKILLs of workers: (pid, when)."""
    outages: list[tuple[int, int]] = field(default_factory=list)
    """When the store could not be reached, or written: (from, to)."""
    patience: int = 0
    """Microseconds within which the runs of a dead worker must be found, on this machine."""

    @cached_property
    def feed_of(self) -> dict[str, list[Event]]:
        """The feed by job."""
        return _by((event.job_id, event) for event in self.feed)

    @cached_property
    def runs_of(self) -> dict[str, list[Line]]:
        """The ledger's lines by job."""
        return _by((line["job"], line) for line in self.runs)

    @cached_property
    def calls_of(self) -> dict[str, list[Line]]:
        """The clients' lines by job."""
        return _by((line["job"], line) for line in self.calls)

    def did(self, job_id: str, do: str, *phases: str) -> list[Line]:
        """Return the calls of clients on a job, in these phases."""
        return [line for line in self.calls_of.get(job_id, []) if line["do"] == do and line["phase"] in phases]


def add_store(history: History, store: Store) -> History:
    """Add the contents of a store: each record, its kept events, and each index as the store shows it."""
    history.jobs = {job.job_id: job for job in walk(store, Select())}
    history.events = {job_id: run_sync(store.events(job_id)) for job_id in history.jobs}
    history.draining_leases = run_sync(store.draining_leases())
    types = sorted({job.job_type for job in history.jobs.values()})
    labels = sorted({pair for job in history.jobs.values() for pair in job.labels.items()})
    selects = [Select(), Select(stalled=True)]
    selects += [Select(types=(kind,), statuses=(status,)) for kind in types for status in STATUSES]
    selects += [Select(labels=(pair,)) for pair in labels]
    history.indexes = [
        Index(select, tuple(job.job_id for job in walk(store, select)), run_sync(store.count(select)))
        for select in selects
    ]
    return history


def walk(store: Store, select: Select) -> list[Job]:
    """Return each job of a selection, page by page."""
    found: list[Job] = []
    after: Position | None = None
    while page := run_sync(store.select(select, PAGE, after)):
        found += page
        after = Position(int(page[-1].record["created"]), page[-1].job_id)
    return found


def at(event: Event) -> int:
    """Return when an event was written, by the store's clock, in microseconds."""
    return round(event.at.timestamp() * 1_000_000) if event.at is not None else 0


def _by(pairs: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    found: defaultdict[str, list[T]] = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return dict(found)
