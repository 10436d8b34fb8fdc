"""The PostgreSQL store beside the same statements with the same values, which a bare psycopg loop sends to a copy of the database.

Both use one connection. The store's own part is what it computes between the statements, and what psycopg does for it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from benchmarks.environment import private_postgres
from benchmarks.surveys import Table, figure

PAIRS = 3
BATCH = 100
BULK = 500
GOAL = 0.6
AIMED = (f"submit, {BULK} a call", f"drain, {BATCH} a batch")
LEASE = 30_000_000

Calls = list[tuple[Any, ...]]


def survey(size: int) -> Table:
    """Measure `size` jobs of each work, in pairs of the store and the bare loop."""
    rows = []
    load = os.getloadavg()[0]
    with private_postgres() as server:
        url = server.url
        for title, (fill, work, part) in WORKS.items():
            pairs = [_pair(url, fill, work, max(size // part, BATCH)) for _ in range(1 if size < BULK else PAIRS)]
            store, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratios = [one / other for one, other in pairs]
            middle = statistics.median(ratios)
            goal = f"{GOAL}, {'reached' if middle >= GOAL else '**not reached**'}" if title in AIMED else ""
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            rows.append([title, figure(store), figure(bare), f"{middle:.2f}", spread, goal])
    notes = [
        f"Median of {PAIRS} pairs; the ratio is the median of the pairs, with the spread. PostgreSQL with its defaults (`fsync` on), two "
        f"CPUs shared with other work, load average {load:.0f} at the start."
    ]
    return Table("postgres", ["work", "store, per second", "bare psycopg", "ratio", "spread", "goal"], rows, notes)


def _pair(url: str, fill: Callable[..., None], work: Callable[..., None], size: int) -> tuple[float, float]:
    """Return how many per second the store does, and the bare loop with the store's statements."""
    import psycopg

    for name in ("copied", "used"):
        _run(url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    _run(url, "CREATE DATABASE used")
    with _jobs(f"{url.rpartition('/')[0]}/used") as jobs:
        fill(jobs, size)
    _run(url, "ALTER DATABASE used ALLOW_CONNECTIONS false")
    _run(url, "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = 'used'")
    _run(url, "CREATE DATABASE copied TEMPLATE used")
    _run(url, "ALTER DATABASE used ALLOW_CONNECTIONS true")
    with _jobs(f"{url.rpartition('/')[0]}/used") as jobs, _recorded() as calls:
        begin = time.perf_counter()
        work(jobs, size)
        store = size / (time.perf_counter() - begin)
    with psycopg.connect(f"{url.rpartition('/')[0]}/copied", autocommit=True) as connection:
        begin = time.perf_counter()
        for several in calls:
            with connection.pipeline():
                cursors = [connection.execute(*call) for call in several]
            for cursor in cursors:
                if cursor.description is not None:
                    cursor.fetchall()
        return store, size / (time.perf_counter() - begin)


def _run(url: str, sql: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql)  # type: ignore[call-overload]


@contextmanager
def _jobs(url: str) -> Iterator[Any]:
    from benchmarks.peers.milepost import application

    jobs, _ = application(url)
    try:
        yield jobs
    finally:
        jobs.close()


@contextmanager
def _recorded() -> Iterator[Calls]:
    """Record the statements of each round trip, with their values."""
    from milepost.stores.postgres.connection import BlockingConnection

    calls: Calls = []
    real = BlockingConnection.run

    async def run(self: BlockingConnection, *several: Any) -> Any:
        calls.append(several)
        return await real(self, *several)

    with patch.object(BlockingConnection, "run", run):
        yield calls


def _nothing(jobs: Any, size: int) -> None:
    jobs.count_jobs()


def _submit(jobs: Any, size: int) -> None:
    for _ in range(size):
        jobs.submit("noop", {})


def _submit_many(jobs: Any, size: int) -> None:
    for first in range(0, size, BULK):
        jobs.submit_many("noop", [{}] * min(BULK, size - first))


def _publish(jobs: Any, size: int) -> None:
    with jobs.run_workers():
        pass


def _backlog(jobs: Any, size: int) -> None:
    _publish(jobs, size)
    _submit_many(jobs, size)


def _drain(jobs: Any, size: int) -> None:
    """Claim jobs and complete those of the claim before, as a worker does."""
    from milepost.core import transitions as plans
    from milepost.stores.ids import new_nonce, new_operation_id
    from milepost.stores.protocol import Claim, Write
    from milepost.stores.sync_bridge import run_sync

    store, running = jobs.store, []
    for number in range(size // BATCH + 1):
        ends = [plans.plan_complete(new_operation_id(), job.record["token"], "1", {}) for job in running]
        writes = [Write(job.job_id, end, answer=False) for job, end in zip(running, ends, strict=True)]
        starts = tuple(
            plans.plan_start(new_operation_id(), nonce=new_nonce(), lease=LEASE, worker="w") for _ in range(BATCH)
        )
        claim = Claim("w", {"noop": None}, starts, new_operation_id(), number=number + 1)
        running = run_sync(store.apply(writes, claim)).claimed
    assert not running, "every job was claimed and completed"


def _progress(jobs: Any, size: int) -> None:
    job = jobs.create_job(job_type="bench")
    jobs.update_job(job.job_id, status="running")
    for step in range(size):
        jobs.update_job(job.job_id, progress=step / size, message=f"step {step}")


WORKS: dict[str, tuple[Callable[..., None], Callable[..., None], int]] = {
    "submit, one a call": (_publish, _submit, 5),
    AIMED[0]: (_publish, _submit_many, 1),
    AIMED[1]: (_backlog, _drain, 1),
    "progress writes": (_nothing, _progress, 5),
}
"""What comes before, what is measured, and by what the number of jobs is divided."""
