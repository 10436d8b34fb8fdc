"""Helpers that wait for other processes, and freeze one. Their timeouts guard against hangs and are not goals."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from milepost.core.errors import StoreError
from milepost.core.job import Job
from milepost.core.transitions import plan_lease_expired
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Store, Write
from milepost.stores.sync_bridge import run_sync

PATIENCE = 120.0
OPEN_TRANSACTIONS = """
SELECT pid, xact_start FROM pg_stat_activity
WHERE xact_start IS NOT NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


def until(what: Callable[[], Any], within: float = PATIENCE) -> Any:
    """Wait until a condition is true and return its value. An unavailable store counts as false."""
    deadline = time.monotonic() + within
    while True:
        try:
            if found := what():
                return found
        except StoreError:
            pass
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def current(jobs: Any, job: Any) -> Job:
    """Return a job as its store has it now. `job` is its id, or has it as `job_id`."""
    found: Job | None = jobs.get_job(getattr(job, "job_id", job))
    assert found is not None
    return found


def lose_lease(store: Store, job_id: str, token: str) -> None:
    """End a run as a sweeper ends one whose lease ran out; its error says "gone".

    The heartbeat may renew the lease between the two writes, or a real sweeper come first: it is tried until the run has lost it.
    """

    def is_lost() -> bool:
        run_sync(store.renew([(job_id, token)], 0))
        plan = plan_lease_expired(new_operation_id(), error="gone", failure="{}", crash_loop="{}", crashes_left=None)
        outcome = run_sync(store.apply([Write(job_id, plan)])).outcomes[0]
        return outcome.accepted or outcome.job is None or outcome.job.record.get("token") != token

    until(is_lost)


def freeze(pid: int, url: str) -> None:
    """SIGSTOP a process that uses the store of that URL, at a moment when it holds no lock of SQLite or PostgreSQL.

    Frozen inside a transaction it would keep every other process from writing, and from taking over what it runs.
    """

    def is_frozen() -> bool:
        os.kill(pid, signal.SIGSTOP)
        until(lambda: is_stopped(pid))
        if is_writable(url):
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    until(is_frozen)


def is_stopped(pid: int) -> bool:
    """Return whether every thread of a process has stopped: one inside a system call may take a lock before it does."""
    states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(state in "TZ" for state in states)  # without /proc there is none to ask


def is_writable(url: str) -> bool:
    """Return whether no process keeps locks of SQLite or PostgreSQL for long; Redis has no such locks."""
    if url.startswith("postgresql"):
        time.sleep(0.2)  # the server executes what it has received
        deadline = time.monotonic() + 0.5
        with psycopg.connect(url, autocommit=True) as session:
            # Not by their state: a pipeline whose end was not sent is "active".
            lasting = set(session.execute(OPEN_TRANSACTIONS))
            while lasting and time.monotonic() < deadline:
                time.sleep(0.02)
                lasting &= set(session.execute(OPEN_TRANSACTIONS))
        return not lasting
    if not url.startswith("sqlite"):
        return True
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0.2, isolation_level=None)) as probe:
        try:
            probe.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True
