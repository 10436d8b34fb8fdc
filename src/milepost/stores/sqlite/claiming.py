"""Handing out jobs, and knowing whether there are any. Owns limits, pauses and the order across queues; knows no
connection and no waiting.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from milepost.core.job import Job
from milepost.stores.protocol import Claim, Write
from milepost.stores.sqlite.rows import LARGEST, Row
from milepost.stores.sqlite.transaction import Reading, Transaction

CLAIMS_KEPT_MICROS = 60_000_000
COME_DUE_AT_ONCE = 500
"""How many scheduled records of a queue one claim makes claimable, so that ten thousand retries due at once take turns."""

_BEFORE_ALL = (-LARGEST, -LARGEST, "")


def claim(tx: Transaction, wish: Claim) -> list[Job]:
    """Start up to as many jobs as the claim brings starts, or answer a repeated claim again."""
    repeated = tx.one("claim_repeated", (wish.worker, wish.op, tx.now))
    if repeated is not None:
        rows = map(tx.row, str(repeated[0]).split())
        return [tx.job(row) for row in rows if row is not None]
    rooms = open_queues(tx, wish.queues, len(wish.starts))
    jobs = _one(tx, wish, rooms) if wish.job_id is not None else _foremost(tx, wish, rooms)
    if jobs:
        ids = " ".join(job.job_id for job in jobs)
        tx.run("claim_put", (wish.worker, wish.op, ids, tx.now + CLAIMS_KEPT_MICROS))
    return jobs


def _one(tx: Transaction, wish: Claim, rooms: Mapping[str, int]) -> list[Job]:
    """Start one job of the open queues, whatever waits before it."""
    row = tx.row(wish.job_id or "")
    if row is None or row.queue not in rooms or not wish.starts:
        return []
    outcome = tx.apply(Write(row.id, wish.starts[0]), row)
    return [outcome.job] if outcome.accepted and outcome.job is not None else []


def _foremost(tx: Transaction, wish: Claim, rooms: dict[str, int]) -> list[Job]:
    """Start the foremost jobs of the open queues; what does not fit is passed over."""
    for queue in rooms:
        tx.run("claim_due", (queue, tx.now, COME_DUE_AT_ONCE))
    jobs: list[Job] = []
    places = dict.fromkeys(rooms, _BEFORE_ALL)
    while len(jobs) < len(wish.starts):
        wanted = len(wish.starts) - len(jobs)
        heads = [
            row
            for queue, room in rooms.items()
            if room > 0
            for row in waiting(tx, queue, tx.now, min(wanted, room), places[queue])
        ]
        if not heads:
            break
        for row in heapq.nsmallest(wanted, heads, key=_order):
            queue = row.queue or ""
            if rooms[queue] <= 0:
                continue
            places[queue] = _order(row)
            start = wish.starts[len(jobs)]
            outcome = tx.apply(Write(row.id, start), row)
            if outcome.accepted and outcome.job is not None:
                jobs.append(outcome.job)
                slot = outcome.job.record.get("slot", "")
                if slot in rooms:
                    rooms[slot] -= 1
    return jobs


def _order(row: Row) -> tuple[int, int, str]:
    return (row.rank, row.created, row.id)


def waiting(db: Reading, queue: str, now: int, most: int, after: tuple[int, int, str] = _BEFORE_ALL) -> list[Row]:
    """The foremost claimable records of a queue after a place in its order."""
    rank, created, job_id = after
    values = {"queue": queue, "rank": rank, "created": created, "id": job_id, "now": now, "most": most}
    return [Row(*found) for found in db.all("claim_next", values)]


def open_queues(db: Reading, queues: Mapping[str, int | None], most: int) -> dict[str, int]:
    """The queues that may start a job now, and how many each, at most `most`."""
    settings = {str(queue): (limit, bool(paused)) for queue, limit, paused in db.all("limits")}
    rooms = {}
    for queue, own in queues.items():
        limit, paused = settings.get(queue, (None, False))
        limit = own if limit is None else limit
        room = most
        if limit is not None:
            held = db.one("claim_held", {"slot": queue})
            room = min(most, limit - (held[0] if held is not None else 0))
        if room > 0 and not paused:
            rooms[queue] = room
    return rooms


def next_due(db: Reading, queues: Iterable[str]) -> int | None:
    """When the next scheduled record of some queues comes due, in microseconds; None without one."""
    times = [found[0] for queue in queues if (found := db.one("claim_ahead", (queue,))) is not None]
    return min(times, default=None)


def claimable(db: Reading, worker: str, queues: Mapping[str, int | None]) -> tuple[bool, int | None]:
    """Whether a worker is nudged or a claim would find something, and else when the next scheduled record is due."""
    if db.one("nudge_look", (worker,)) is not None:
        return True, None
    now, rooms = db.place.tick(), open_queues(db, queues, 1)
    for queue in rooms:
        if waiting(db, queue, now, 1):
            return True, None
    due = next_due(db, rooms)
    return due is not None and due <= now, due
