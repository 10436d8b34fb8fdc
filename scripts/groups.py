"""Measure batches and suspended runs: python scripts/groups.py [--scale F] [--store memory|sqlite|redis|postgres]
       [--record FILE].

Without options it takes 100,000 jobs in a batch, and 10,000 for the other figures; `--scale 0.1` takes a tenth of them. `--record
docs/reliability.md` adds a row to its table for each store. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from records import commit, parser_of, publish  # noqa: E402
from tests.postgres_server import PostgresServer  # noqa: E402
from tests.redis_server import RedisServer  # noqa: E402

from milepost import Jobs, Run  # noqa: E402 - the path comes first
from milepost.core.transitions import plan_start  # noqa: E402
from milepost.query.depth import read_depths  # noqa: E402
from milepost.stores.factory import open_store  # noqa: E402
from milepost.stores.ids import new_nonce, new_operation_id  # noqa: E402
from milepost.stores.protocol import Claim  # noqa: E402
from milepost.stores.sync_bridge import run_sync  # noqa: E402

STORES = ["memory", "sqlite", "redis", "postgres"]
ANSWERS = 200
PAIRS = 200


def handlers(jobs: Jobs) -> None:
    """Add the handlers to an application, whose workers are this process."""

    @jobs.job("nothing", max_attempts=10)
    def nothing(run: Run) -> None: ...

    @jobs.job("asks")
    def asks(run: Run) -> int:
        run.ask("go", "Go?", bool)
        return time.time_ns()

    @jobs.job("sleeps")
    def sleeps(run: Run) -> None:
        run.sleep("nap", "30d")


@contextmanager
def application(url: str) -> Iterator[Jobs]:
    """Yield an application on an empty namespace."""
    jobs = Jobs(open_store(url, namespace=f"groups-{time.time_ns()}"))
    handlers(jobs)
    jobs.worker()  # so that a store in memory starts no worker by itself
    yield jobs
    jobs.close()


def batch_counts(url: str, count: int) -> float:
    """Return the milliseconds that `counts()` of a batch takes, as the median of 100 calls."""
    with application(url) as jobs, jobs.batch("b") as batch:
        for _ in range(0, count, 1000):
            batch.submit_many("nothing", [{}] * min(1000, count))
        return _median_ms(100, batch.counts)


def fan_in(url: str, count: int) -> tuple[float, float]:
    """Return the seconds from the first end of the members of a batch to the start of the job that follows, and from the last."""
    with application(url) as jobs:
        with jobs.batch("b") as batch:
            for _ in range(0, count, 1000):
                batch.submit_many("nothing", [{}] * min(1000, count))
            then = batch.then("asks")
        began = time.monotonic()
        with jobs.run_workers(concurrency=50):
            ended = time.monotonic()
            while (job := jobs.get_job(then.job_id)) is not None and job.started_at is None:
                if batch.counts().open:
                    ended = time.monotonic()
                time.sleep(0.005)
            return time.monotonic() - began, time.monotonic() - ended


def wakes(url: str) -> tuple[float, float]:
    """Return the milliseconds from an answer to the code after `run.ask`, at p50 and p99."""
    found: list[float] = []
    with application(url) as jobs, jobs.run_workers():
        for _ in range(ANSWERS):
            job_id = jobs.submit("asks").job_id
            while (job := jobs.get_job(job_id)) is None or not job.record.get("held"):
                time.sleep(0.002)
            began = time.time_ns()
            jobs.answer(job_id, "go", True)
            found.append((jobs.wait(job_id, 60).result - began) / 1e6)
    found.sort()
    return statistics.median(found), found[int(len(found) * 0.99)]


def suspended(url: str, count: int, used: Callable[[], int]) -> tuple[float, float]:
    """Return by how many percent suspended runs slow a claim, as the median of interleaved pairs, and the bytes of each."""
    with application(url) as jobs, application(url) as empty:
        with empty.run_workers(concurrency=50):  # scripts, indexes and connections are no cost of a run
            empty.wait(empty.submit("nothing"))
        before = used()
        for _ in range(0, count, 1000):
            jobs.submit_many("sleeps", [{}] * min(1000, count))
        with jobs.run_workers(concurrency=50):
            while jobs.count_jobs(status="running") or _claimable(jobs):
                time.sleep(0.2)
        size = (used() - before) / count
        rates = []
        for _ in range(PAIRS):
            with_them, alone = _claim_ms(jobs), _claim_ms(empty)
            rates.append(with_them / alone)
        return (statistics.median(rates) - 1) * 100, size


def _claimable(jobs: Jobs) -> bool:
    return any(depth.claimable for depth in run_sync(read_depths(jobs.store)).values())


def _claim_ms(jobs: Jobs) -> float:
    jobs.submit("sleeps", {}, priority=9)
    starts = (plan_start(new_operation_id(), nonce=new_nonce(), lease=30_000_000, worker="figures"),)
    began = time.perf_counter()
    (job,) = run_sync(jobs.store.apply([], Claim("figures", {"sleeps": None}, starts, new_operation_id()))).claimed
    taken = time.perf_counter() - began
    jobs.delete_job(job.job_id)
    return taken * 1000


def _median_ms(times: int, call: Callable[[], object]) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


@contextmanager
def store(kind: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """Yield the URL of a store, and what returns the bytes that it takes."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "redis":
            options = {"hash-max-listpack-value": "512"}  # as docs/how-to/redis.md recommends
            with RedisServer(appendonly="always", options=options) as server, server.client() as client:
                yield server.url, lambda: int(client.info("memory")["used_memory"])
        elif kind == "postgres":
            with PostgresServer() as postgres:
                url = postgres.database("jobs")
                yield url, lambda: _database_size(url)
        elif kind == "sqlite":
            path = Path(folder) / "jobs.db"
            yield f"sqlite:///{path}", lambda: sum(one.stat().st_size for one in Path(folder).iterdir())
        else:
            yield "memory://", lambda: 0


def _database_size(url: str) -> int:
    """Return the bytes of a database of PostgreSQL after a VACUUM, as it has while nothing changes."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM")
        ((size,),) = connection.execute("SELECT pg_database_size(current_database())").fetchall()
        return int(size)


def measure(kind: str, scale: float) -> list[object]:
    """Return the cells of the row of a store."""
    many, count = int(100_000 * scale), int(10_000 * scale)
    with store(kind) as (url, used):
        counts = batch_counts(url, many)
        whole, last = fan_in(url, count)
        p50, p99 = wakes(url)
        slower, size = suspended(url, count, used)
    when, machine = datetime.now(UTC).date().isoformat(), f"{os.cpu_count()} CPUs, Python {platform.python_version()}"
    return [
        when, commit(), machine, kind, f"{many:,}: {counts:.2f} ms", f"{count:,}: {whole:.1f} s, {last * 1000:.0f} ms after the last",
        f"{p50:.1f} / {p99:.1f} ms", f"{count:,}: {slower:+.0f} %, {f'{size:,.0f} bytes each' if size else '-'}",
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each store."""
    parser = parser_of(__doc__, STORES)
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args(arguments)
    for kind in given.stores or STORES:
        publish(measure(kind, given.scale), "groups.py", given.record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
