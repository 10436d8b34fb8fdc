"""Answer lists and counts from indexes."""

from __future__ import annotations

import heapq
import itertools
import json
from typing import Any

from milepost.core.job import Job
from milepost.stores.protocol import Position, Select
from milepost.stores.sqlite.records import LARGEST, Row
from milepost.stores.sqlite.transaction import ReadTransaction


def select(db: ReadTransaction, wanted: Select, limit: int, after: Position | None) -> list[Job]:
    """Return the newest `limit` matching jobs after a position."""
    created, job_id = after if after is not None else (LARGEST, "")
    if wanted.created_before is not None:
        created, job_id = min((created, job_id), (wanted.created_before, ""))
    values: dict[str, Any] = {
        "created": max(-LARGEST, min(created, LARGEST)),
        "id": job_id,
        "since": -LARGEST if wanted.created_after is None else max(-LARGEST, min(wanted.created_after, LARGEST)),
        "types": json.dumps(wanted.types) if wanted.types else None,
        "statuses": json.dumps(wanted.statuses) if wanted.statuses else None,
        "stalled": int(wanted.stalled),
        "labels": json.dumps([f"{key}={value}" for key, value in wanted.labels]) if wanted.labels else None,
        "limit": max(0, min(limit, LARGEST)),
    }
    lists = pairs_of(db, wanted)
    rows = _walk(db, wanted, values, lists)
    return [db.job(row) for row in rows]


def oldest(db: ReadTransaction, status: str, limit: int) -> list[Job]:
    """Return the `limit` oldest jobs of a status."""
    limit = max(0, min(limit, LARGEST))
    lists = pairs_of(db, Select(statuses=(status,)))
    branches = [db.each("oldest", {"type": kind, "status": status, "limit": limit}) for kind, _ in lists]
    merged = heapq.merge(*branches, key=_order)
    return [db.job(Row(*found)) for found in itertools.islice(merged, limit)]


def pairs_of(db: ReadTransaction, wanted: Select) -> dict[tuple[str, str], int]:
    """Return the (type, status) pairs that a selection covers -> the number of records in each."""
    return {
        (kind, status): count
        for kind, status, count in db.all("counts")
        if (not wanted.types or kind in wanted.types) and (not wanted.statuses or status in wanted.statuses)
    }


def _walk(db: ReadTransaction, wanted: Select, values: dict[str, Any], lists: dict[tuple[str, str], int]) -> list[Row]:
    """Read the index that is expected to need the fewest rows: the shortest, or the one with the most matches."""
    if wanted.stalled:
        return _rows(db, "select_stalled", values)
    inside = sum(lists.values())
    if wanted.labels:
        everything = sum(pairs_of(db, Select()).values()) or 1
        having = {pair: label_count(db, pair) for pair in (f"{key}={value}" for key, value in wanted.labels)}
        pair = min(having, key=having.__getitem__)
        limit = values["limit"]
        by_label = min(having[pair], limit * everything / (inside or 1))
        by_list = min(inside, limit * everything / (having[pair] or 1))
        if by_label <= by_list:
            return _rows(db, "select_labelled", {**values, "pair": pair})
    if not wanted.types and not wanted.statuses:
        return _rows(db, "select_created", values)
    branches = [db.each("select_listed", {**values, "type": kind, "status": status}) for kind, status in lists]
    if len(branches) == 1:
        return [Row(*found) for found in branches[0].fetchall()]
    merged = heapq.merge(*branches, key=_order, reverse=True)
    return [Row(*found) for found, _ in zip(merged, range(values["limit"]), strict=False)]


def _rows(db: ReadTransaction, name: str, values: dict[str, Any]) -> list[Row]:
    return [Row(*found) for found in db.all(name, values)]


def _order(found: tuple[Any, ...]) -> tuple[int, str]:
    return (found[2], found[1])


def label_count(db: ReadTransaction, pair: str) -> int:
    """Return how many records have a label."""
    found = db.one("count_label", (pair,))
    return int(found[0]) if found is not None else 0


def count(db: ReadTransaction, wanted: Select) -> int | None:
    """Return the exact number of matches, or None if no counter has it."""
    if not wanted.is_counted:
        return None
    if wanted.labels:
        key, value = wanted.labels[0]
        return label_count(db, f"{key}={value}")
    if wanted.stalled:
        found = db.one("count_stalled")
        return int(found[0]) if found is not None else 0
    return sum(pairs_of(db, wanted).values())
