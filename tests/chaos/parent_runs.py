"""A parent with many children on two workers, one of which is killed every two seconds with the server of the store.

`python -m tests.chaos.parent_runs` is such a worker.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from milepost import Event, Jobs, Run
from milepost.core.errors import StoreError
from milepost.stores.factory import open_store
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
KILL_SECONDS = 2.0
LEASE_SECONDS = 5
SLOTS = 8
"""Slots of each worker."""
LEAST_SECONDS = 6.0
"""The least time in which both workers together run many children, which sleep for it."""
MOST_SECONDS = KILL_SECONDS / 2
"""The longest sleep of a child: of a few children, longer ones would be killed again and again."""
PATIENCE = 1800.0
_PROGRAM = "tests.chaos.parent_runs"


class ParentRun(NamedTuple):
    """How one parent ended, and what is wrong with that."""

    kills: int
    """Kills of workers; the server of the store was killed as often, if it has one."""
    segments: int
    """Starts of the parent's code. A parent that no kill hits has two."""
    lost: int
    """How often a kill ended the parent's own run."""
    seconds: float
    problems: Sequence[str]


def handlers(jobs: Jobs) -> None:
    """Add a parent and its children to an application."""

    @jobs.job("part", max_attempts=10)
    def part(run: Run, number: int, seconds: float) -> int:
        time.sleep(seconds)
        return number

    @jobs.job("parent", max_attempts=10)
    def parent(run: Run, children: int) -> int:
        sleeps = min(MOST_SECONDS, 2 * SLOTS * LEAST_SECONDS / children)
        for number in range(children):
            run.submit_child(str(number), part, number=number, seconds=sleeps)
        joined = run.join()
        run.log("joined")
        return len(joined)


def run_parent(url: str, namespace: str, children: int, restart_server: Callable[[], None] | None = None) -> ParentRun:
    """Run a parent to its end under kills.

    The kills and the children begin when all children are made: more kills of its own are a crash loop.
    """
    environment = {
        **os.environ,
        "MILEPOST_URL": url,
        "MILEPOST_NAMESPACE": namespace,
        "MILEPOST_LEASE": str(LEASE_SECONDS),
        "PYTHONPATH": str(ROOT),
    }

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", _PROGRAM], env=environment, cwd=ROOT, stdout=subprocess.PIPE)

    jobs = Jobs(open_store(url, namespace=namespace))
    handlers(jobs)
    jobs.limit("part", running=0)
    began, kills = time.monotonic(), 0
    job_id = jobs.submit("parent", {"children": children}).job_id
    workers = [start() for _ in range(2)]
    try:
        until(lambda: jobs.count_jobs("part") == children or _has_ended(jobs, job_id), PATIENCE)
        jobs.remove_limit("part")
        while not _has_ended(jobs, job_id) and time.monotonic() - began < PATIENCE:
            worker = workers.pop(0)
            wait_until_ready(worker)
            time.sleep(KILL_SECONDS if kills else random.uniform(0, KILL_SECONDS))
            end(worker)
            if restart_server is not None:
                restart_server()
            workers.append(start())
            kills += 1
        seconds = time.monotonic() - began
        return _found(jobs, job_id, children, kills, seconds)
    finally:
        for worker in workers:
            end(worker)
        jobs.close()


def wait_until_ready(worker: subprocess.Popen[bytes]) -> None:
    """Wait until a worker has started. On a slow machine it would be killed before it runs a job, each time, and a few such
    kills of a run in a row are a crash loop.
    """
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"ready\n"


def end(worker: subprocess.Popen[bytes]) -> None:
    """Kill a worker."""
    with worker:
        worker.kill()


def work_until_killed(add_handlers: Callable[[Jobs], None], concurrency: int) -> None:
    """Run the jobs of the store in MILEPOST_URL, and say when it has started."""
    jobs = Jobs(os.environ["MILEPOST_URL"])
    add_handlers(jobs)
    with jobs.run_workers(concurrency=concurrency):
        print("ready", flush=True)
        signal.pause()


@contextlib.contextmanager
def store(kind: str) -> Iterator[tuple[str, Callable[[], None] | None]]:
    """Yield the URL of a store (redis, postgres, sqlite) that keeps what it acknowledges, and what kills and starts its server."""
    if kind == "redis":
        with RedisServer(appendonly="always") as server:
            yield server.url, lambda: server.restart(signal.SIGKILL)
    elif kind == "postgres":
        with PostgresServer() as postgres:

            def restart() -> None:
                postgres.stop("immediate")
                postgres.start()

            yield postgres.database("jobs"), restart
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/jobs.db", None


def _has_ended(jobs: Jobs, job_id: str) -> bool:
    with contextlib.suppress(StoreError):  # the server was killed
        job = jobs.get_job(job_id)
        return job is None or job.is_terminal
    return False


def _found(jobs: Jobs, job_id: str, children: int, kills: int, seconds: float) -> ParentRun:
    job, events = jobs.get_job(job_id), list(jobs.events(job_id))
    assert job is not None
    problems = []
    if (job.status, job.result) != ("completed", children):
        problems.append(f"{job.status} with {job.result!r}: {job.error}")
    if (made := jobs.count_jobs("part")) != children:
        problems.append(f"{made} children")
    if (completed := jobs.count_jobs("part", "completed")) != children:
        others = [
            f"{part.status}: {part.error}" for part in jobs.list_jobs("part", limit=1000) if part.status != "completed"
        ]
        problems.append(f"{completed} children completed, others: {others[:3]}")
    kinds = [event.kind for event in events]
    turns = [
        kind == "running" for kind in kinds if kind in ("running", "suspended", "retrying", "released", "completed")
    ]
    if turns != [True, False] * (len(turns) // 2):
        problems.append(f"starts and ends do not alternate: {kinds}")
    if (joined := sum(map(_is_joined, events))) > 1 + kinds.count("retrying"):
        problems.append(f"join returned {joined} times")
    return ParentRun(kills, kinds.count("running"), kinds.count("retrying"), seconds, problems)


def _is_joined(event: Event) -> bool:
    return event.kind == "log" and "joined" in str(event.data)


if __name__ == "__main__":
    work_until_killed(handlers, SLOTS)
