"""Short words for what the tests of the SQLite store do, and what must hold of any file of it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

from milepost.core import lifecycle as plans
from milepost.core.change import Change
from milepost.core.job import Job
from milepost.core.packing import unpack
from milepost.stores.driving import drive
from milepost.stores.ids import new_nonce, new_op
from milepost.stores.protocol import Claim, Outcome, Write
from milepost.stores.sqlite import SQLiteStore

LEASE = 30_000_000


def create(job_id: str, *, op: str | None = None, **fields: str) -> Write:
    """A job of a worker comes to be."""
    base = {"type": "t", "driver": "worker", "queue": "q", "slot": "q", "max_attempts": "3", "budget": "3"}
    return Write(job_id, plans.plan_create({**base, **fields}, op or new_op()))


def start(worker: str = "w", lease: int = LEASE) -> Change:
    """A worker starts a job."""
    return plans.plan_start(new_op(), nonce=new_nonce(), lease=lease, worker=worker)


def do(store: SQLiteStore, *writes: Write) -> list[Outcome]:
    """Apply changes by the blocking face; all must be accepted."""
    outcomes = drive(store.apply(writes)).outcomes
    assert all(outcome.accepted for outcome in outcomes), outcomes
    return outcomes


def claim(store: SQLiteStore, most: int = 1, *, worker: str = "w", lease: int = LEASE) -> list[Job]:
    """Claim up to `most` jobs of queue q."""
    wish = Claim(worker, {"q": None}, tuple(start(worker, lease) for _ in range(most)), new_op())
    return drive(store.apply([], wish)).claimed


def check_file(path: Path) -> dict[str, dict[str, str]]:
    """The file is sound, and every counter, column and label equals the records (I12); the records by id."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        rows = connection.execute("SELECT id, created, type, status, stalled, token, body FROM jobs").fetchall()
        records = {row[0]: unpack(row[6]) for row in rows}
        lists = Counter((row[2], row[3]) for row in rows)
        labels = {
            (pair, int(record["created"]), job_id)
            for job_id, record in records.items()
            for pair in filter(None, record.get("labels", "").split("\x1f"))
        }
        for job_id, created, kind, status, stalled, token, _ in rows:
            record = records[job_id]
            assert (str(created), kind, status) == (record["created"], record["type"], record["status"])
            assert bool(stalled) is bool(record.get("stalled"))
            assert (token is not None) is (status == "running" and record["driver"] != "caller")
        tallies = connection.execute("SELECT kind, name, status, count FROM tallies WHERE count <> 0").fetchall()
        found = {(name, status): count for kind, name, status, count in tallies if kind == "list"}
        assert found == dict(lists)
        assert set(connection.execute("SELECT pair, created, id FROM labels")) == labels
        by_pair = Counter(pair for pair, _, _ in labels)
        assert {name: count for kind, name, _, count in tallies if kind == "label"} == dict(by_pair)
        flagged = sum(bool(record.get("stalled")) for record in records.values())
        assert sum(count for kind, _, _, count in tallies if kind == "stalled") == flagged
        for job_id, record in records.items():
            kept = connection.execute(
                "SELECT version FROM events WHERE id = ? AND keep > 0 ORDER BY version", (job_id,)
            ).fetchall()
            assert kept[-1][0] <= int(record["version"])
        return records
    finally:
        connection.close()
