"""PostgreSQL under a steady load beside long transactions of readers, which keep dead rows from being removed.

Jobs are submitted at a fixed rate to two worker processes, which also hold the leases of jobs that run the whole time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.environment import private_postgres
from benchmarks.install import ROOT
from benchmarks.surveys import Table, figure

RATE = 800
READERS = 3
READ_SECONDS = 120.0
WORKERS = 2
LONG_JOBS = 50
TURN = 0.25
PARTS = 6
GOAL_SECONDS = 5.0

WAITING = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp()) - created / 1e6), 0)::float
FROM (SELECT created FROM milepost.ready WHERE due IS NULL ORDER BY queue, rank, created, id LIMIT 1) AS oldest
"""
SIZES = """
SELECT (sum(pg_total_relation_size(relid)) / 1e6)::float, sum(n_dead_tup)::int,
    (sum(pg_total_relation_size(relid)) FILTER (WHERE relname = 'events') / 1e6)::float
FROM pg_stat_user_tables WHERE schemaname = 'milepost'
"""
RENEWALS = (
    "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = 'milepost' AND relname = 'leases'"
)


def application(url: str) -> Any:
    """Return the application of the workers."""
    from milepost import Jobs, Run

    jobs = Jobs(url)

    @jobs.job("noop")
    async def noop(run: Run) -> int:
        return 1

    @jobs.job("long")
    def long(run: Run, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            run.check()
            time.sleep(1)

    return jobs


def survey(size: int) -> Table:
    """Keep up the load for `size` seconds."""
    load = os.getloadavg()[0]
    rows = []
    with private_postgres() as server, ExitStack() as stack:
        import psycopg

        jobs = application(server.url)
        jobs.count_jobs()
        for _ in range(WORKERS):
            stack.enter_context(_worker(server.url))
        jobs.submit_many("long", [{"seconds": size}] * LONG_JOBS)
        over = threading.Event()
        stack.callback(over.set)
        read_seconds = min(READ_SECONDS, size / 3)
        for number in range(READERS):
            wait = number * read_seconds / READERS
            reader = threading.Thread(target=_read, args=(server.url, over, wait, read_seconds), daemon=True)
            reader.start()
        db = stack.enter_context(psycopg.connect(server.url, autocommit=True))
        begin, submitted = time.monotonic(), 0
        for part in range(PARTS):
            behind, before, end = 0.0, submitted, begin + size * (part + 1) / PARTS
            while (now := time.monotonic()) < end:
                due = int((now - begin) * RATE) - submitted
                if due > 0:
                    jobs.submit_many("noop", [{}] * min(due, RATE))
                    submitted += min(due, RATE)
                behind = max(behind, _one(db, WAITING)[0])
                time.sleep(max(0.0, now + TURN - time.monotonic()))
            total, dead, events = _one(db, SIZES)
            took = f"{size * part / PARTS:.0f} to {size * (part + 1) / PARTS:.0f} s"
            rate = (submitted - before) / (size / PARTS)
            rows.append([took, figure(rate), f"{behind:.1f} s", figure(total), figure(events), f"{dead:,}"])
        updates, hot = _one(db, RENEWALS)
        jobs.close()
    notes = [
        f"{RATE} jobs/s were to be submitted, for {WORKERS} workers, beside {LONG_JOBS} jobs that ran the whole time and {READERS} overlapping "
        f"transactions of {read_seconds:.0f} s; {hot:,} of {updates:,} renewals of leases stayed on their page (HOT). The oldest job was to wait "
        f"for at most {GOAL_SECONDS:.0f} s. Two CPUs shared with other work, load average {load:.0f} at the start."
    ]
    columns = [
        "time",
        "submitted, jobs/s",
        "longest wait of the oldest job",
        "all tables, MB",
        "events, MB",
        "dead rows",
    ]
    return Table("postgres_load", columns, rows, notes)


def _one(db: Any, sql: str) -> tuple[Any, ...]:
    found: tuple[Any, ...] = db.execute(sql).fetchone()
    return found


@contextmanager
def _worker(url: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.surveys.postgres_load", url], cwd=ROOT)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _read(url: str, over: threading.Event, wait: float, seconds: float) -> None:
    """Hold one transaction after another open, as a report that reads the jobs does."""
    import psycopg

    over.wait(wait)
    with psycopg.connect(url) as db:
        while not over.is_set():
            db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            db.execute("SELECT count(*) FROM milepost.jobs")
            over.wait(seconds)
            db.rollback()


if __name__ == "__main__":
    application(sys.argv[1]).worker(concurrency=100).run()
