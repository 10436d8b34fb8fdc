"""Which ended records a purge may remove: a child goes with its root, and what an open job waits for stays.

A record that has to stay is looked at again after another retention time: its own is counted anew from now on, or from the end
of the record that keeps it. So a purge passes over it once in that time, however often it runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from milepost.core.placement import parent_of
from milepost.core.transitions.change import Record
from milepost.stores.protocol import PurgeResult, Store

OPEN = (1 << 63) - 1
"""Stands for the end of a child that has not ended."""
LEVELS = 100
"""The most levels of children that go together. A longer line, as of jobs that each make the next one, goes in such parts."""
KEPT_PER_REMOVED = 25
"""The most records that a purge passes over, for each one that it may remove."""
PURGE_BATCH = 100
"""Records that SQLite and PostgreSQL remove per transaction, which holds the lock of SQLite for about 10 ms."""


class Kin(NamedTuple):
    """What a purge asks about a record."""

    parent: str
    """The job whose run made it, or empty."""
    since: int | None
    """Since when its retention is counted, in microseconds; None while it is open."""
    awaited: bool
    """Whether an open job waits for it, or for a group of it."""
    below: int | None
    """The newest `since` of its children, OPEN while one of them is open; None without children."""


class Family(Protocol):
    """What a store knows of records and their children. Methods of blocking stores never suspend."""

    async def kin(self, job_ids: Sequence[str]) -> Mapping[str, Kin]:
        """Return what a purge asks about these records, without those that do not exist."""

    async def children(self, job_id: str, limit: int) -> list[str]:
        """Return the first children of a record, in the order of their ids."""


class Purgeable(NamedTuple):
    """What a purge does with the records that are due."""

    gone: list[str]
    """The records to remove, children before their parent."""
    later: dict[str, int]
    """Records that stay -> since when their retention is counted."""


def parent_by_run(record: Record) -> str:
    """Return the id of the job whose run made a record, or empty."""
    return parent_of(record) if "child_key" in record else ""


async def purge_older(store: Store, *, ttl: float, limit: int = 500) -> int:
    """Remove all jobs that ended more than `ttl` seconds ago, in slices of `limit`; return how many were removed."""
    before, removed, more = await store.now() - int(ttl * 1_000_000), 0, True
    while more:
        gone, more = await store.purge(before=before, limit=limit)
        removed += gone
    return removed


async def purge_in_batches(
    purge: Callable[[int], Awaitable[tuple[int, int, bool]]], limit: int, batch: int = PURGE_BATCH
) -> PurgeResult:
    """Remove up to `limit` records in short transactions.

    `purge` is one of them, for at most a number of records: it returns how many it removed, of how many others the retention
    is counted anew, and whether there may be more.
    """
    removed = kept = 0
    more = True
    while more and removed < limit and kept < KEPT_PER_REMOVED * limit:
        gone, passed, more = await purge(min(batch, limit - removed))
        removed, kept = removed + gone, kept + passed
    return PurgeResult(removed, bool(more))


async def purgeable(family: Family, due: Sequence[str], *, bound: int, now: int, limit: int) -> Purgeable:
    """Return what to do with ended records whose retention is counted since before `bound`; remove at most `limit`."""
    seen = dict(await family.kin(due))
    gone: dict[str, None] = {}
    later: dict[str, int] = {}

    async def look(job_id: str) -> Kin | None:
        if job_id and job_id not in seen:
            seen.update(await family.kin([job_id]))
        return seen.get(job_id)

    async def add(job_id: str, kin: Kin, levels: int = LEVELS) -> int | None:
        """Add a record that has ended to `gone`, after its children; return since when it counts if it has to stay."""
        if kin.since is None or kin.awaited:
            return now
        if max(kin.since, kin.below or 0) >= bound:
            return min(max(kin.since, kin.below or 0), now)
        if kin.below is not None and levels:
            made = await family.children(job_id, limit - len(gone))
            seen.update(await family.kin([child for child in made if child not in seen]))
            for child in made:
                if child in seen and (stays := await add(child, seen[child], levels - 1)) is not None:
                    return stays
        if len(gone) < limit:
            gone[job_id] = None
        return None

    for job_id in due:
        if len(gone) >= limit:
            break
        kin = seen.get(job_id)
        if job_id in gone or kin is None:
            continue
        root, found = job_id, kin
        for _ in range(LEVELS):
            above = None if found.since is None or found.parent in gone else await look(found.parent)
            if above is None:
                break
            root, found = found.parent, above
        size = len(gone)
        stays = await add(root, found)
        if stays is not None:
            for added in list(gone)[size:]:
                del gone[added]
            seen[root] = found._replace(since=stays if found.since is not None else None)
            later[job_id] = stays
            if found.since is not None:
                later[root] = stays
    return Purgeable(list(gone), later)
