"""Answering lists and counts from indexes. Owns which index a selection walks; knows no cursor text and no filter."""

from __future__ import annotations

import heapq
import json
from typing import Any

from milepost.core.job import Job
from milepost.stores.protocol import Position, Select
from milepost.stores.sqlite.rows import LARGEST, Row
from milepost.stores.sqlite.transaction import Reading


def select(db: Reading, wanted: Select, limit: int, after: Position | None) -> list[Job]:
    """The newest `limit` jobs that match and come after a position."""
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


def pairs_of(db: Reading, wanted: Select) -> dict[tuple[str, str], int]:
    """The lists, by type and status, that a selection may take from, with the number of records in each."""
    return {
        (kind, status): count
        for kind, status, count in db.all("counts")
        if (not wanted.types or kind in wanted.types) and (not wanted.statuses or status in wanted.statuses)
    }


def _walk(db: Reading, wanted: Select, values: dict[str, Any], lists: dict[tuple[str, str], int]) -> list[Row]:
    """Walk the index that is expected to come to an end first: the shortest, or the one that is richest in matches."""
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


def _rows(db: Reading, name: str, values: dict[str, Any]) -> list[Row]:
    return [Row(*found) for found in db.all(name, values)]


def _order(found: tuple[Any, ...]) -> tuple[int, str]:
    return (found[2], found[1])


def label_count(db: Reading, pair: str) -> int:
    """How many records have a label."""
    found = db.one("count_label", (pair,))
    return int(found[0]) if found is not None else 0


def count(db: Reading, wanted: Select) -> int | None:
    """How many match, exactly; None where no counter tells."""
    narrow = bool(wanted.types or wanted.statuses)
    if wanted.created_after is not None or wanted.created_before is not None:
        return None
    if len(wanted.labels) + wanted.stalled + narrow > 1:
        return None
    if wanted.labels:
        key, value = wanted.labels[0]
        return label_count(db, f"{key}={value}")
    if wanted.stalled:
        found = db.one("count_stalled")
        return int(found[0]) if found is not None else 0
    return sum(pairs_of(db, wanted).values())
