"""Query the SQLite store: lists, counts and pages of jobs, and the claim of pending ones."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from milepost.core.job import Job
from milepost.core.limits import Capacities, earliest, queue_name, slot_of
from milepost.core.transitions import operation_ids
from milepost.stores.claim_order import ClaimOrder
from milepost.stores.protocol import Claim, Position, Select, Write
from milepost.stores.rows import LARGEST, Row
from milepost.stores.sqlite import limits
from milepost.stores.sqlite.transaction import ReadTransaction, WriteTransaction


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


PROMOTE_BATCH = 500
"""The most scheduled records of a queue that one claim makes claimable, so that many retries due at once are spread."""

_BEFORE_ALL = (-LARGEST, -LARGEST, "")


def claim(tx: WriteTransaction, request: Claim) -> tuple[list[Job], int | None]:
    """Start jobs, at most as many as the claim has starts, or repeat the answer to a repeated claim.

    Return them, and when a gate or a rate lets more of them start.
    """
    # In memory: a worker claims through the store of its own process, and an idle one should not write to the file.
    numbers = tx.file.claim_numbers
    if request.number < numbers.get(request.worker, 0):
        return [], None
    numbers[request.worker] = request.number
    repeated = tx.one("claim_repeated", (request.worker, request.operation_id, tx.now))
    if repeated is not None:
        rows = map(tx.row, str(repeated[0]).split())
        return [tx.job(row) for row in rows if row is not None], None
    capacities = limits.capacities_of(tx, request.queues, tx.now)
    queues = [queue for queue in request.queues if not capacities.is_paused(queue)]
    if request.job_id is not None:
        jobs = _named_job(tx, request, queues, capacities)
    else:
        jobs = _first_of_queues(tx, request, queues, capacities)
    if jobs:
        ids = " ".join(job.job_id for job in jobs)
        tx.run("claim_put", (request.worker, request.operation_id, ids, tx.now + operation_ids.KEPT_MICROS))
    for key, opens in capacities.opens.items():
        tx.run("limit_opens", (opens, key))
    return jobs, capacities.reopens()


def _named_job(tx: WriteTransaction, request: Claim, queues: Sequence[str], capacities: Capacities) -> list[Job]:
    """Start the named job if it is in an open queue, regardless of the order."""
    row = tx.row(request.job_id or "")
    if row is None or row.queue is None or queue_name(row.queue) not in queues or not request.starts:
        return []
    # `queue` is not the name of its subqueue while the job is scheduled.
    slot = slot_of(row.record().get("ready", row.queue))
    if capacities.of(slot) <= 0:
        return []
    outcome = tx.apply(Write(row.id, request.starts[0]), row)
    if not outcome.accepted or outcome.job is None:
        return []
    capacities.take(slot)
    return [outcome.job]


def _first_of_queues(tx: WriteTransaction, request: Claim, queues: Sequence[str], capacities: Capacities) -> list[Job]:
    """Start the first jobs of the open queues, skipping those that are refused."""
    for queue in queues:
        limits.promote_due(tx, queue, PROMOTE_BATCH)
    most = len(request.starts)
    rings = {queue: limits.subqueue_rings(tx, queue) for queue in queues}
    heads = {queue: _heads(tx, queue, int(max(1, min(most, capacities.of(slot_of(queue)))))) for queue in queues}

    def next_head(name: str) -> Row | None:
        if name not in heads:
            heads[name] = _heads(tx, name, 1)
        return next(heads[name], None)

    found = {queue: limits.first_subqueues(tx, queue, some, capacities, most) for queue, some in rings.items()}
    order = ClaimOrder(found, capacities, next_head)
    jobs: list[Job] = []
    while len(jobs) < most and (head := order.next()) is not None:
        name, row = head
        outcome = tx.apply(Write(row.id, request.starts[len(jobs)]), row)
        if outcome.accepted and outcome.job is not None:
            jobs.append(outcome.job)
            order.started(name, limits.take_turn(tx, name) if rings[queue_name(name)] else 0)
    return jobs


def _heads(tx: WriteTransaction, name: str, most: int) -> Iterator[Row]:
    """Yield the claimable records of a queue or a subqueue, of which `most` are read at first."""
    place = _BEFORE_ALL
    while rows := waiting(tx, name, tx.now, most, place):
        for row in rows:
            place = (row.rank, row.created, row.id)
            yield row
        if len(rows) < most:
            return
        most *= 2


def waiting(
    db: ReadTransaction, queue: str, now: int, most: int, after: tuple[int, int, str] = _BEFORE_ALL
) -> list[Row]:
    """Return the first claimable records of a queue after a position."""
    rank, created, job_id = after
    values = {"queue": queue, "rank": rank, "created": created, "id": job_id, "now": now, "most": most}
    return [Row(*found) for found in db.all("claim_next", values)]


def next_due(db: ReadTransaction, queues: Iterable[str]) -> int | None:
    """Return when the next scheduled record of the queues is due, in microseconds, or None."""
    times = [found[0] for queue in queues if (found := db.one("claim_next_due", (queue,))) is not None]
    return min(times, default=None)


def claimable(db: ReadTransaction, worker: str, queues: Mapping[str, int | None]) -> tuple[bool, int | None]:
    """Return whether a worker is woken or could claim a job, and otherwise when the next scheduled record is due."""
    if db.one("wake_check", (worker,)) is not None:
        return True, None
    now = db.file.read_clock()
    capacities = limits.capacities_of(db, queues, now)
    opened = [queue for queue in queues if not capacities.is_paused(queue)]
    for queue in opened:
        for one in limits.first_subqueues(db, queue, limits.subqueue_rings(db, queue), capacities, 1):
            if capacities.of(slot_of(one.name)) > 0 and waiting(db, one.name, now, 1):
                return True, None
    due = earliest(next_due(db, opened), capacities.reopens())
    return due is not None and due <= now, due
