"""Which jobs, in full: what indexes answer and what must be looked at. Owns cursors and the walk through a list.

Filters apply before the limit: the walk goes on until the page is full, the jobs are at an end, or `SCAN_MAX` jobs were
looked at (then the page says so, and its cursor goes on from there).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

from milepost.core.errors import InvalidInput
from milepost.core.job import Job
from milepost.stores.protocol import Position, Select, Store

SCAN_MAX = 100_000
BATCH = 500


ALL = Select()


@dataclass(frozen=True, slots=True)
class Query:
    """A selection that indexes answer, and tests that each job must pass beside it."""

    select: Select = ALL
    tests: tuple[Callable[[Job], bool], ...] = ()

    def matches(self, job: Job) -> bool:
        """Whether a job is one of those, judged by its fields alone."""
        select = self.select
        return (
            (not select.types or job.job_type in select.types)
            and (not select.statuses or job.status.value in select.statuses)
            and all(job.labels.get(key) == value for key, value in select.labels)
            and (not select.stalled or bool(job.stalled))
            and (select.created_after is None or created(job) >= select.created_after)
            and (select.created_before is None or created(job) < select.created_before)
            and all(test(job) for test in self.tests)
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, newest first. `total` is exact or None; then `total_at_least` says how many are known to match.

    `next_cursor` is None when there are no more. `scanned_all` is False when the walk was ended by its bound.
    """

    jobs: list[Job]
    total: int | None
    total_at_least: int
    next_cursor: str | None
    scanned_all: bool = True


def created(job: Job) -> int:
    """When a job was created, in microseconds, as its store ordered it."""
    return int(job.record["created"])


async def find(store: Store, query: Query, limit: int, cursor: str | None = None, *, counted: bool = True) -> Page:
    """One page of the jobs that match, with its total unless it is not to be `counted`.

    Raises InvalidInput for a cursor that is none of ours.
    """
    after = read_cursor(cursor) if cursor else None
    found: list[Job] = []
    seen = 0
    while True:
        size = limit + 1 - len(found) if not query.tests else max(BATCH, limit + 1)
        batch = await store.select(query.select, size, after)
        seen += len(batch)
        for job in batch:
            if query.tests and not all(test(job) for test in query.tests):
                continue
            found.append(job)
            if len(found) > limit:
                break
        full = len(found) > limit
        if full or len(batch) < size or seen >= SCAN_MAX:
            break
        after = position(batch[-1])
    more = full or (len(batch) >= size and seen >= SCAN_MAX)
    jobs = found[:limit]
    last = jobs[-1] if full else batch[-1] if more else None
    total = await store.count(query.select) if counted and not query.tests else None
    return Page(
        jobs, total, total if total is not None else len(found), write_cursor(last) if last else None, full or not more
    )


def position(job: Job) -> Position:
    """Where a job stands in the order of a list."""
    return Position(created(job), job.job_id)


def write_cursor(job: Job) -> str:
    """An opaque text for the place of a job."""
    return base64.urlsafe_b64encode(f"{created(job)}:{job.job_id}".encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> Position:
    """The place that a cursor names. Raises InvalidInput."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        when, _, job_id = text.partition(":")
        return Position(int(when), job_id)
    except (binascii.Error, ValueError):
        raise InvalidInput(
            "cursor", f"{cursor!r:.60} is not a cursor of this list; leave it out to begin anew"
        ) from None
