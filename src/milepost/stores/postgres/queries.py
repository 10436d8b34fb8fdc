"""Lists, counts and renewals: which statement answers them, and its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from milepost.core.job import Job
from milepost.core.limits import slot_of
from milepost.stores.postgres.database import Database, Part
from milepost.stores.postgres.subqueues import capacity_parts, open_rings
from milepost.stores.postgres.writes import job_of
from milepost.stores.protocol import Position, Select
from milepost.stores.rows import LARGEST


async def select(db: Database, wanted: Select, limit: int, after: Position | None) -> list[Job]:
    """Return the newest `limit` matching jobs after a position."""
    created, job_id = after if after is not None else (LARGEST, "")
    if wanted.created_before is not None:
        created, job_id = min((created, job_id), (wanted.created_before, ""))
    labels = [f"{key}={value}" for key, value in wanted.labels]
    values: dict[str, Any] = {
        "created": max(-LARGEST, min(created, LARGEST)),
        "id": job_id,
        "since": -LARGEST if wanted.created_after is None else max(-LARGEST, min(wanted.created_after, LARGEST)),
        "types": list(wanted.types) or None,
        "statuses": list(wanted.statuses) or None,
        "stalled": wanted.stalled,
        "labels": labels or None,
        "limit": max(0, min(limit, LARGEST)),
    }
    name = "select_created"
    if wanted.stalled:
        name = "select_stalled"
    elif labels:
        name, values["pair"] = "select_labelled", labels[0]
        if len(labels) > 1:
            having = await label_counts(db, labels)
            values["pair"] = min(labels, key=lambda pair: having.get(pair, 0))
    elif wanted.types or wanted.statuses:
        name = "select_listed"
    (rows,) = await db.run((name, values))
    return [job_of(row) for row in rows]


async def has_claimable_subqueue(
    db: Database, queues: list[str], own: Mapping[str, int | None], now: int
) -> tuple[bool, int | None]:
    """Return whether a subqueue of these queues has a claimable job and capacity, and when a gate or a rate opens."""
    rings: dict[str, list[str]] = {}
    for (ring,) in (await db.run(("rings", {"queues": queues})))[0]:
        rings.setdefault(slot_of(ring), []).append(ring)
    read = open_rings(rings, own, now, *await db.run(*capacity_parts(rings, own)))
    (((has_jobs,),),) = await db.run(("claimable_in", read.request))
    return bool(has_jobs), read.capacities.reopens()


async def oldest(db: Database, status: str, limit: int) -> list[Job]:
    """Return the `limit` oldest jobs of a status."""
    values = {"types": None, "statuses": [status], "limit": max(0, min(limit, LARGEST))}
    (rows,) = await db.run(("oldest", values))
    return [job_of(row) for row in rows]


async def count(db: Database, wanted: Select) -> int | None:
    """Return the exact number of matches, or None if no counter has it."""
    if not wanted.is_counted:
        return None
    if wanted.labels:
        key, value = wanted.labels[0]
        return (await label_counts(db, [f"{key}={value}"])).get(f"{key}={value}", 0)
    if wanted.stalled:
        (rows,) = await db.run(("count_stalled", None))
        return int(rows[0][0]) if rows else 0
    found = await counts(db)
    return sum(
        number
        for (kind, status), number in found.items()
        if (not wanted.types or kind in wanted.types) and (not wanted.statuses or status in wanted.statuses)
    )


async def counts(db: Database) -> dict[tuple[str, str], int]:
    """Return the number of records by type and status."""
    (rows,) = await db.run(("counts", None))
    return {(kind, status): number for kind, status, number in rows}


async def label_counts(db: Database, pairs: list[str]) -> dict[str, int]:
    """Return how many records have each label, without those that none has."""
    (rows,) = await db.run(("count_labels", {"pairs": pairs}))
    return dict(rows)


async def first_ids(db: Database, name: str, group: str, limit: int) -> list[str]:
    """Return the ids that a statement reads for a group."""
    (rows,) = await db.run((name, {"group": group, "limit": limit}))
    return [job_id for (job_id,) in rows]


async def member_counts(db: Database, groups: Sequence[str]) -> list[dict[str, int]]:
    """Return the numbers of the members of each group, by state."""
    found: dict[str, dict[str, int]] = {group: {} for group in groups}
    for group, ended, count in (await db.run(("member_counts", {"groups": list(groups)})))[0]:
        found[group][ended] = count
    return [found[group] for group in groups]


def renewal(leases: Sequence[tuple[str, str]], micros: int | None) -> Part:
    """Return the statement that renews leases, or only checks them."""
    ids, tokens = [job_id for job_id, _ in leases], [token for _, token in leases]
    return "renew_check" if micros is None else "renew", {"ids": ids, "tokens": tokens, "micros": micros}
