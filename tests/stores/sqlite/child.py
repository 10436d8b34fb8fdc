"""Programs for processes of their own: `python -m tests.stores.sqlite.child NAME PATH ...`. Each says what it did, a line at a time."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time

from milepost.core import lifecycle as plans
from milepost.stores.driving import drive
from milepost.stores.ids import new_op
from milepost.stores.protocol import Write
from milepost.stores.sqlite import SQLiteStore
from milepost.stores.sqlite.transaction import Transaction
from tests.stores.sqlite.words import claim, create, do


def say(text: str) -> None:
    """Tell the test."""
    print(text, flush=True)


def write(path: str, name: str, count: str) -> None:
    """Create jobs and say each id once it is acknowledged."""
    store = SQLiteStore(path, synchronous="NORMAL", patience=60)
    for number in range(int(count)):
        do(store, create(f"{name}-{number}", labels=f"by={name}"))
        say(f"{name}-{number}")
    drive(store.close())


def drain(path: str, name: str) -> None:
    """Claim and complete jobs until there are none, and say each."""
    store = SQLiteStore(path, synchronous="NORMAL", patience=60)
    while jobs := claim(store, 3, worker=name):
        for job in jobs:
            do(store, Write(job.job_id, plans.plan_complete(new_op(), job.record["token"], "1", {})))
            say(job.job_id)
    drive(store.close())


def die_before_commit(path: str) -> None:
    """Create one job, then die with a second one written and not committed."""
    store = SQLiteStore(path)
    do(store, create("kept"))
    say("kept")
    Transaction.finish = lambda self: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    do(store, create("half"))


def lock(path: str, seconds: str) -> None:
    """Hold the file's write lock."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    say("locked")
    time.sleep(float(seconds))
    free = time.monotonic()
    connection.execute("COMMIT")
    say(str(free))


def later(path: str, seconds: str) -> None:
    """Create one job after a while."""
    store = SQLiteStore(path, synchronous="NORMAL")
    drive(store.now())
    say("ready")
    time.sleep(float(seconds))
    do(store, create("later"))
    say(str(time.monotonic()))


def nudge(path: str, worker: str) -> None:
    """Wake a worker."""
    store = SQLiteStore(path, synchronous="NORMAL")
    drive(store.nudge(worker))


if __name__ == "__main__":
    {f.__name__: f for f in (write, drain, die_before_commit, lock, later, nudge)}[sys.argv[1]](*sys.argv[2:])
