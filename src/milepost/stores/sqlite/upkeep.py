"""What the sweeper asks for: what is due, what may go. Owns the hold after an outage, batches and the trimming of the
feed; knows no lifecycle and no waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from milepost.core.defaults import FEED_KEPT
from milepost.stores.protocol import Due, Pass
from milepost.stores.sqlite.rows import Row
from milepost.stores.sqlite.transaction import Reading, Transaction

PURGED_AT_ONCE = 100
"""Records removed in one transaction, about 10 ms of the file's lock."""

TRIMMED_AT_ONCE = 2_000
"""Events looked at in one transaction, about 5 ms of the file's lock."""


def too_soon(db: Reading, interval: float) -> bool:
    """Whether another sweep was here within half the interval."""
    last, now = db.number("swept"), db.place.tick()
    return last is not None and now - last < interval * 500_000


def sweep(tx: Transaction, lease: float, interval: float, limit: int) -> Pass:
    """One pass: what is due, unless another pass was here a moment ago."""
    last, hold = tx.number("swept"), tx.number("hold")
    now = tx.now = tx.place.tick(last or 0)
    if last is not None and now - last < interval * 500_000:
        return Pass([], skipped=True)
    tx.keep_number("swept", now)
    if hold is None and last is not None and now - last > lease * 500_000:
        hold = now + int(lease * 1_000_000)
        tx.keep_number("hold", hold)
    held = hold is not None and now < hold
    if hold is not None and not held:
        tx.run("state_drop", ("hold",))
    due = list(islice(_due(tx, held, limit + 1), limit + 1))
    return Pass(due[:limit], held=held, more=len(due) > limit)


def _due(tx: Transaction, held: bool, most: int) -> Iterator[Due]:
    company: dict[str, int] | None = None
    if not held:
        for found in tx.all("sweep_lease", (tx.now, most)):
            job = tx.job(Row(*found))
            if company is None:
                company = {worker or "": count for worker, count in tx.all("sweep_company")}
            yield Due("lease", job.job_id, job, company=company.get(job.worker or "", 1))
    for kind in ("deadline", "stale"):
        for found in tx.all(f"sweep_{kind}", (tx.now, most)):
            job = tx.job(Row(*found))
            yield Due(kind, job.job_id, job)
    if not held:
        for job_id, token in tx.all("sweep_stops", (tx.now, most)):
            row = tx.row(job_id)
            yield Due("stopping", job_id, tx.job(row) if row is not None else None, token)


def purge(tx: Transaction, bound: int, most: int) -> int:
    """Remove up to `most` records that ended before a moment, with all that belongs to them."""
    rows = tx.all("purge_ended", (bound, most))
    for n, job_id, created, text in rows:
        row = Row(n, job_id, created, "", "", None, None, None, None, text)
        tx.remove(row, row.record() if "\nl=" in f"\n{text}" else {})
    return len(rows)


def forget(tx: Transaction) -> None:
    """Take away what only a repeated request would have needed, and what has expired."""
    tx.run("purge_tombstones", (tx.now,))
    tx.run("purge_claims", (tx.now,))
    tx.run("purge_nudges", (tx.now - 60_000_000,))
    tx.run("purge_shelf", (tx.now,))
    tx.run("purge_tallies")


def overlong(db: Reading) -> bool:
    """Whether the feed is well above what is kept of it."""
    end, _ = db.end()
    return end - FEED_KEPT - (db.number("trimmed") or 0) >= TRIMMED_AT_ONCE


def trim(tx: Transaction) -> bool:
    """Take away the next events that have left the feed and are in no list of a job; whether there are more."""
    end, _ = tx.end()
    begin = tx.number("trimmed") or 0
    until = min(end - FEED_KEPT, begin + TRIMMED_AT_ONCE)
    if until <= begin:
        return False
    tx.run("feed_trim", (begin, until))
    tx.keep_number("trimmed", until)
    return until < end - FEED_KEPT
