"""Many partitions under load: whether a large one delays small ones, and a limit for each while workers are killed.

`scripts/limits.py` measures them. `python -m tests.chaos.limited_load` is such a worker.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from milepost import Jobs, Run
from milepost.core.events import Event
from milepost.stores.factory import open_store
from milepost.stores.sync_bridge import run_sync
from tests.chaos.checker_runs import i33
from tests.chaos.history import History
from tests.chaos.parent_runs import end, wait_until_ready, work_until_killed
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer

SMALL = 990
"""Jobs of the small partitions together."""
PER_PARTITION, OF_EACH = 2, 5
KILL_INTERVAL = 2.0
_PROGRAM = "tests.chaos.limited_load"


def add_handlers(jobs: Jobs) -> None:
    """Add the handlers to an application."""

    @jobs.job("call", max_attempts=10)
    def call(run: Run) -> None:
        time.sleep(0.02)


@contextmanager
def application(url: str, namespace: str = "load") -> Iterator[Jobs]:
    """Yield an application on a namespace."""
    jobs = Jobs(open_store(url, namespace=namespace))
    add_handlers(jobs)
    jobs.worker()  # so that a store in memory starts no worker by itself
    yield jobs
    jobs.close()


def run_small(url: str, large: int) -> tuple[float, int]:
    """Run 99 partitions with 10 jobs each beside one with this number of jobs.

    Return the seconds until they have ended, and how many jobs of the large one have ended by then.
    """
    with application(url, f"load-{large}") as jobs:
        for first in range(0, large, 1000):
            jobs.submit_many("call", [{}] * min(1000, large - first), partition="large")
        with jobs.batch("small") as batch:
            for number in range(SMALL // 10):
                batch.submit_many("call", [{}] * 10, partition=f"small-{number}")
        began = time.monotonic()
        with jobs.run_workers(concurrency=8):
            while batch.counts().open:
                time.sleep(0.01)
            return time.monotonic() - began, jobs.count_jobs("call", "completed") - SMALL


def run_under_kills(url: str, partitions: int) -> tuple[list[str], int]:
    """Run 5 jobs of each partition while workers are killed; return what exceeded the limit of 2 of each, and the kills."""
    with application(url) as jobs:
        names = [f"tenant-{number}" for number in range(partitions)]
        position = run_sync(jobs.store.feed(None)).position
        jobs.limit("call", per_partition=PER_PARTITION)
        calls = [
            {"job": job_id, "type": "call", "partition": name, "do": "submit", "phase": "done"}
            for name in names
            for job_id in jobs.submit_many("call", [{}] * OF_EACH, partition=name)
        ]
        environment = {
            **os.environ, "MILEPOST_URL": url, "MILEPOST_NAMESPACE": "load",
            "MILEPOST_LEASE": "2", "MILEPOST_SWEEP": "0.5",
        }  # fmt: skip
        workers, kills, feed = [_start(environment) for _ in range(2)], 0, list[Event]()
        killed_at = 0.0
        try:
            while True:
                found = run_sync(jobs.store.feed(position, limit=1000, timeout=0.1))
                assert not found.lost
                position, feed = found.position, feed + found.events
                statuses = {status for _, status in run_sync(jobs.store.counts())}  # in one: jobs go back and forth
                if not found.events and not statuses & {"pending", "running"}:
                    return list(i33(History(calls=calls, feed=feed, per_partition={"call": PER_PARTITION}))), kills
                is_running = any(event.kind == "running" for event in found.events)
                if is_running and time.monotonic() - killed_at > KILL_INTERVAL:
                    number = kills % 2
                    wait_until_ready(workers[number])
                    end(workers[number])
                    workers[number], kills, killed_at = _start(environment), kills + 1, time.monotonic()
        finally:
            for worker in workers:
                end(worker)


def _start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", _PROGRAM]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)


@contextmanager
def store(kind: str) -> Iterator[str]:
    """Yield the URL of an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "redis":
            with RedisServer(appendonly="everysec") as server:
                yield server.url
        elif kind == "postgres":
            with PostgresServer() as postgres:
                yield postgres.database("jobs")
        else:
            yield "memory://" if kind == "memory" else f"sqlite:///{Path(folder) / 'jobs.db'}"


if __name__ == "__main__":
    work_until_killed(add_handlers, 8)
