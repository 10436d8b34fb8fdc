"""Find pages of jobs by indexes and, where no index answers, by testing each job.

Tests apply before the limit: the scan continues until the page is full, no jobs are left, or `SCAN_MAX` jobs were read
(then the page says so, and its cursor continues from there).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

from milepost.core.errors import InvalidInputError, JobNotFoundError
from milepost.core.job import Job
from milepost.core.serialization import known_id, validate_job_id
from milepost.stores.protocol import Position, Select, Store

SCAN_MAX = 100_000
BATCH = 500


ALL = Select()


@dataclass(frozen=True, slots=True)
class Query:
    """A selection that indexes answer, and tests that each selected job must pass."""

    select: Select = ALL
    tests: tuple[Callable[[Job], bool], ...] = ()

    def matches(self, job: Job) -> bool:
        """Return whether a job matches, by its fields alone."""
        select = self.select
        return (
            (not select.types or job.job_type in select.types)
            and (not select.statuses or job.status.value in select.statuses)
            and all(_has(job, key, value) for key, value in select.labels)
            and (not select.stalled or bool(job.stalled))
            and (select.created_after is None or created(job) >= select.created_after)
            and (select.created_before is None or created(job) < select.created_before)
            and all(test(job) for test in self.tests)
        )


def _has(job: Job, key: str, value: str) -> bool:
    """Return whether a job has a pair of an index: a label, or with a colon before its name the value of a field."""
    if not key.startswith(":"):
        return job.labels.get(key) == value
    held = getattr(job, key[1:])
    return value in held if isinstance(held, tuple) else bool(held == value)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of jobs, newest first.

    `total` is exact, or None if no index counts the matches, for example those of a label and a status; `total_at_least` is
    the number of known matches. `next_cursor` is None on the last page. `scanned_all` is False if the scan reached its
    limit.
    """

    jobs: list[Job]
    total: int | None
    total_at_least: int
    next_cursor: str | None
    scanned_all: bool = True


async def existing_job(store: Store, job_id: str) -> Job:
    """Return a job. Raises JobNotFoundError."""
    job = await store.get(known_id(job_id))
    if job is None:
        raise JobNotFoundError(job_id)
    return job


def created(job: Job) -> int:
    """Return the creation time of a job in microseconds, by which its store orders it."""
    return int(job.record["created"])


async def find(store: Store, query: Query, limit: int, cursor: str | None = None, *, counted: bool = True) -> Page:
    """Return one page of matching jobs, with the total unless `counted` is False.

    Raises InvalidInputError for an invalid cursor.
    """
    after = read_cursor(cursor) if cursor else None
    found: list[Job] = []
    seen = 0
    while True:
        if not store.blocking:
            await _yield_to_loop()
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


async def _yield_to_loop() -> None:
    """Let other tasks run: a store in memory never suspends, and a long walk would hold up its event loop."""
    import asyncio  # here, because blocking programs do without it

    await asyncio.sleep(0)


def position(job: Job) -> Position:
    """Return the position of a job in a list."""
    return Position(created(job), job.job_id)


def write_cursor(job: Job) -> str:
    """Return an opaque cursor for the position of a job."""
    return base64.urlsafe_b64encode(f"{created(job)}:{job.job_id}".encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> Position:
    """Return the position of a cursor. Raises InvalidInputError."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        when, _, job_id = text.partition(":")
        return Position(int(when), validate_job_id(job_id))
    except (binascii.Error, ValueError, TypeError, InvalidInputError):
        raise InvalidInputError(
            "cursor", f"{cursor!r:.60} is not a valid cursor; omit it to start from the first page"
        ) from None
