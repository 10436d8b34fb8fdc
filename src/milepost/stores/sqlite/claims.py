"""Claim jobs in order across queues, within limits and pauses."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from milepost.core.job import Job
from milepost.core.options import limit_name
from milepost.core.transitions import operation_ids
from milepost.stores.protocol import Claim, Write
from milepost.stores.sqlite.records import LARGEST, Row
from milepost.stores.sqlite.transaction import ReadTransaction, WriteTransaction

PROMOTE_BATCH = 500
"""The most scheduled records of a queue that one claim makes claimable, so that many retries due at once are spread."""

_BEFORE_ALL = (-LARGEST, -LARGEST, "")


def claim(tx: WriteTransaction, request: Claim) -> list[Job]:
    """Start jobs, at most as many as the claim has starts, or repeat the answer to a repeated claim."""
    # In memory: a worker claims through the store of its own process, and an idle one should not write to the file.
    numbers = tx.file.claim_numbers
    if request.number < numbers.get(request.worker, 0):
        return []
    numbers[request.worker] = request.number
    repeated = tx.one("claim_repeated", (request.worker, request.operation_id, tx.now))
    if repeated is not None:
        rows = map(tx.row, str(repeated[0]).split())
        return [tx.job(row) for row in rows if row is not None]
    capacities = open_queues(tx, request.queues, len(request.starts))
    jobs = (
        _named_job(tx, request, capacities) if request.job_id is not None else _first_of_queues(tx, request, capacities)
    )
    if jobs:
        ids = " ".join(job.job_id for job in jobs)
        tx.run("claim_put", (request.worker, request.operation_id, ids, tx.now + operation_ids.KEPT_MICROS))
    return jobs


def _named_job(tx: WriteTransaction, request: Claim, capacities: Mapping[str, int]) -> list[Job]:
    """Start the named job if it is in an open queue, regardless of the order."""
    row = tx.row(request.job_id or "")
    if row is None or row.queue not in capacities or not request.starts:
        return []
    outcome = tx.apply(Write(row.id, request.starts[0]), row)
    return [outcome.job] if outcome.accepted and outcome.job is not None else []


def _first_of_queues(tx: WriteTransaction, request: Claim, capacities: dict[str, int]) -> list[Job]:
    """Start the first jobs of the open queues, skipping those that are refused."""
    for queue in capacities:
        tx.run("claim_promote", (queue, tx.now, PROMOTE_BATCH))
    jobs: list[Job] = []
    places = dict.fromkeys(capacities, _BEFORE_ALL)
    while len(jobs) < len(request.starts):
        wanted = len(request.starts) - len(jobs)
        heads = [
            row
            for queue, capacity in capacities.items()
            if capacity > 0
            for row in waiting(tx, queue, tx.now, min(wanted, capacity), places[queue])
        ]
        if not heads:
            break
        for row in heapq.nsmallest(wanted, heads, key=_order):
            queue = row.queue or ""
            if capacities[queue] <= 0:
                continue
            places[queue] = _order(row)
            start = request.starts[len(jobs)]
            outcome = tx.apply(Write(row.id, start), row)
            if outcome.accepted and outcome.job is not None:
                jobs.append(outcome.job)
                slot = outcome.job.record.get("slot", "")
                for name in capacities:
                    capacities[name] -= limit_name(name) == slot
    return jobs


def _order(row: Row) -> tuple[int, int, str]:
    return (row.rank, row.created, row.id)


def waiting(
    db: ReadTransaction, queue: str, now: int, most: int, after: tuple[int, int, str] = _BEFORE_ALL
) -> list[Row]:
    """Return the first claimable records of a queue after a position."""
    rank, created, job_id = after
    values = {"queue": queue, "rank": rank, "created": created, "id": job_id, "now": now, "most": most}
    return [Row(*found) for found in db.all("claim_next", values)]


def open_queues(db: ReadTransaction, queues: Mapping[str, int | None], most: int) -> dict[str, int]:
    """Return the queues that may start jobs now -> how many, at most `most`."""
    settings = {str(queue): (limit, bool(paused)) for queue, limit, paused in db.all("limits")}
    capacities = {}
    for queue, own in queues.items():
        name = limit_name(queue)
        limit, paused = settings.get(name, (None, False))
        limit = own if limit is None else limit
        capacity = most
        if limit is not None:
            held = db.one("claim_held", {"slot": name})
            capacity = min(most, limit - (held[0] if held is not None else 0))
        if capacity > 0 and not paused:
            capacities[queue] = capacity
    return capacities


def next_due(db: ReadTransaction, queues: Iterable[str]) -> int | None:
    """Return when the next scheduled record of the queues is due, in microseconds, or None."""
    times = [found[0] for queue in queues if (found := db.one("claim_next_due", (queue,))) is not None]
    return min(times, default=None)


def claimable(db: ReadTransaction, worker: str, queues: Mapping[str, int | None]) -> tuple[bool, int | None]:
    """Return whether a worker is woken or could claim a job, and otherwise when the next scheduled record is due."""
    if db.one("wake_check", (worker,)) is not None:
        return True, None
    now, capacities = db.file.read_clock(), open_queues(db, queues, 1)
    for queue in capacities:
        if waiting(db, queue, now, 1):
            return True, None
    due = next_due(db, capacities)
    return due is not None and due <= now, due
