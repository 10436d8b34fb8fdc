"""Shortcuts for tests of the SQLite store, and a check of the consistency of its file."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.core.record_codec import large_fields, unpack
from milepost.core.transitions.change import Change
from milepost.core.values import LargeValue
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.protocol import Claim, Write, WriteResult
from milepost.stores.sqlite import SQLiteStore
from milepost.stores.sync_bridge import run_sync

LEASE = 30_000_000


def create(job_id: str, *, operation_id: str | None = None, **fields: str) -> Write:
    """Return the write that creates a worker job."""
    base = {"type": "t", "run_by": "worker", "ready": "q", "slot": "q", "max_attempts": "3", "budget": "3"}
    return Write(job_id, plans.plan_create({**base, **fields}, operation_id or new_operation_id()))


def start(worker: str = "w", lease: int = LEASE) -> Change:
    """Return the write that starts a job."""
    return plans.plan_start(new_operation_id(), nonce=new_nonce(), lease=lease, worker=worker)


def do(store: SQLiteStore, *writes: Write) -> list[WriteResult]:
    """Apply changes on a blocking store; all must be accepted."""
    outcomes = run_sync(store.apply(writes)).outcomes
    assert all(outcome.accepted for outcome in outcomes), outcomes
    return outcomes


def claim(store: SQLiteStore, most: int = 1, *, worker: str = "w", lease: int = LEASE) -> list[Job]:
    """Claim up to `most` jobs of queue q."""
    wish = Claim(worker, {"q": None}, tuple(start(worker, lease) for _ in range(most)), new_operation_id())
    return run_sync(store.apply([], wish)).claimed


def check_file(path: Path) -> dict[str, dict[str, str]]:
    """Assert that the file is intact and its counters, columns and labels match the records; return the records by id."""
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
            assert (token is not None) is (status == "running" and record["run_by"] != "manual")
        counters = connection.execute("SELECT kind, name, status, count FROM counters WHERE count <> 0").fetchall()
        found = {(name, status): count for kind, name, status, count in counters if kind == "list"}
        assert found == dict(lists)
        assert set(connection.execute("SELECT pair, created, id FROM labels")) == labels
        by_pair = Counter(pair for pair, _, _ in labels)
        assert {name: count for kind, name, _, count in counters if kind == "label"} == dict(by_pair)
        flagged = sum(bool(record.get("stalled")) for record in records.values())
        assert sum(count for kind, _, _, count in counters if kind == "stalled") == flagged
        large = connection.execute("SELECT id, name, length(CAST(value AS BLOB)) FROM large").fetchall()
        markers = [(job_id, name, record[name]) for job_id, record in records.items() for name in large_fields(record)]
        assert sorted(large) == sorted((i, name, value.size) for i, name, m in markers if (value := LargeValue.read(m)))
        first = "SELECT queue, min(rank) FROM jobs WHERE scheduled IS NULL AND instr(queue, char(31)) GROUP BY queue"
        placed = connection.execute("SELECT name, rank FROM subqueues WHERE rank IS NOT NULL").fetchall()
        assert sorted(placed) == sorted(connection.execute(first))
        for job_id, record in records.items():
            kept = connection.execute(
                "SELECT version FROM events WHERE id = ? AND keep > 0 ORDER BY version", (job_id,)
            ).fetchall()
            assert kept[-1][0] <= int(record["version"])
        return records
    finally:
        connection.close()
