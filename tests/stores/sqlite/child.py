"""Programs for child processes: `python -m tests.stores.sqlite.child NAME PATH ...`. Each prints one line per step."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
import time

from milepost.core import transitions as plans
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Select, Write
from milepost.stores.sqlite import SQLiteStore
from milepost.stores.sqlite.transaction import WriteTransaction
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.concurrency import frequent_switches
from tests.stores.sqlite.sqlite_fixture import claim, create, do, start


def print_line(text: str) -> None:
    """Tell the test."""
    print(text, flush=True)


def write(path: str, name: str, count: str) -> None:
    """Create jobs, and print each id once it is acknowledged."""
    store = SQLiteStore(path, synchronous="NORMAL", patience=60)
    for number in range(int(count)):
        do(store, create(f"{name}-{number}", labels=f"by={name}"))
        print_line(f"{name}-{number}")
    run_sync(store.close())


def drain(path: str, name: str) -> None:
    """Claim and complete jobs until there are none, and print each id."""
    store = SQLiteStore(path, synchronous="NORMAL", patience=60)
    while jobs := claim(store, 3, worker=name):
        for job in jobs:
            do(store, Write(job.job_id, plans.plan_complete(new_operation_id(), job.record["token"], "1", {})))
            print_line(job.job_id)
    run_sync(store.close())


def die_before_commit(path: str) -> None:
    """Create one job, then die with a second one written and not committed."""
    store = SQLiteStore(path)
    do(store, create("kept"))
    print_line("kept")
    WriteTransaction.finish = lambda self: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    do(store, create("half"))


def large(path: str) -> None:
    """Give jobs large values, small ones again, and an end; delete every third, but not the first. Print each step."""
    store = SQLiteStore(path, synchronous="NORMAL", patience=60)
    for number in range(100_000):
        job_id, text = f"j{number}", '"' + "x" * 70_000 + '"'
        do(store, create(job_id, params=text))
        job = do(store, Write(job_id, start()))[0].job
        assert job is not None
        token = job.record["token"]
        for checkpoint in (text, "1", text):
            do(store, Write(job_id, plans.plan_checkpoint(new_operation_id(), token, checkpoint, {})))
            print_line(job_id)
        do(store, Write(job_id, plans.plan_complete(new_operation_id(), token, text if number % 2 else "1", {})))
        print_line(job_id)
        if number % 3 == 2:
            do(store, Write(job_id, plans.plan_delete(new_operation_id())))


def lock(path: str, seconds: str) -> None:
    """Hold the file's write lock."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    print_line("locked")
    time.sleep(float(seconds))
    free = time.monotonic()
    connection.execute("COMMIT")
    print_line(str(free))


def later(path: str, seconds: str) -> None:
    """Create one job after a while."""
    store = SQLiteStore(path, synchronous="NORMAL")
    run_sync(store.now())
    print_line("ready")
    time.sleep(float(seconds))
    do(store, create("later"))
    print_line(str(time.monotonic()))


def wake(path: str, worker: str) -> None:
    """Wake a worker."""
    store = SQLiteStore(path, synchronous="NORMAL")
    run_sync(store.wake(worker))


def fork(path: str) -> None:
    """Fork while other threads make stores; print what the hooks at the forks raised."""
    end, errors = threading.Event(), []
    sys.unraisablehook = lambda raised: errors.append(repr(raised.exc_value))

    def make_stores() -> None:
        while not end.is_set():
            SQLiteStore(path)

    threads = [threading.Thread(target=make_stores) for _ in range(3)]
    with frequent_switches():
        for thread in threads:
            thread.start()
        for _ in range(30):
            if (child := os.fork()) == 0:
                os._exit(bool(errors))
            if os.waitpid(child, 0)[1]:
                errors.append("in the child")
        end.set()
        for thread in threads:
            thread.join()
    print_line(str(errors))


def fork_meanwhile(path: str) -> None:
    """Fork while another thread opens a store; print the jobs that parent and child have created in it."""
    reached, forking, opened, released = (threading.Event() for _ in range(4))

    def clock() -> int:
        if threading.current_thread().name == "holder":
            reached.set()
            released.wait(60)
        return time.time_ns() // 1000

    def hold() -> None:
        do(SQLiteStore(f"{path}-other", clock=clock), create("held"))

    def open_store() -> None:
        forking.wait()
        do(store := SQLiteStore(path), create("parent"))
        stores.append(store)
        opened.set()

    def release() -> None:
        forking.wait()
        opened.wait(1)  # a store that is opened during the fork has to wait for its end
        released.set()

    stores: list[SQLiteStore] = []
    threading.Thread(target=hold, name="holder").start()
    reached.wait()  # the fork waits for this transaction
    os.register_at_fork(before=forking.set)
    threading.Thread(target=open_store).start()
    threading.Thread(target=release).start()
    child_wrote, parent_closed = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        store = stores[0] if stores else SQLiteStore(path)
        do(store, create("child"))
        os.write(child_wrote[1], b"x")
        os.read(parent_closed[0], 1)
        do(store, create("child-again"))
        os._exit(0)
    os.read(child_wrote[0], 1)
    opened.wait()
    run_sync(stores[0].close())
    os.write(parent_closed[1], b"x")
    os.waitpid(child, 0)
    print_line(" ".join(sorted(job.job_id for job in run_sync(SQLiteStore(path).select(Select(), 10)))))


if __name__ == "__main__":
    programs = (write, drain, die_before_commit, large, lock, later, wake, fork, fork_meanwhile)
    {f.__name__: f for f in programs}[sys.argv[1]](*sys.argv[2:])
