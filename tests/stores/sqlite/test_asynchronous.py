"""The asynchronous edition: the loop goes on whatever the file does, and what is cancelled leaves nothing half done."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from milepost.core import lifecycle as plans
from milepost.core.errors import StoreUnavailable
from milepost.stores.driving import drive
from milepost.stores.ids import new_op
from milepost.stores.protocol import Select, Write
from milepost.stores.sqlite import SQLiteStore
from milepost.stores.sqlite.transaction import Transaction
from tests.stores.sqlite.words import check_file, create


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    """An asynchronous store."""
    opened = SQLiteStore(path, blocking=False, synchronous="NORMAL", patience=20)
    yield opened
    await opened.close()


class Lock:
    """Another connection that holds the file's lock."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("BEGIN IMMEDIATE")

    def free(self) -> None:
        self.connection.execute("ROLLBACK")
        self.connection.close()


async def test_the_loop_goes_on_while_another_process_holds_the_lock(store: SQLiteStore, path: Path) -> None:
    await store.apply([create("before")])
    lock = Lock(path)
    asyncio.get_running_loop().call_later(0.5, lock.free)  # never, if the loop stood still
    writing = asyncio.ensure_future(store.apply([create("after")]))
    assert await store.get("before") is not None, "reading waits for no writer"
    assert not writing.done()
    assert (await writing).outcomes[0].accepted


async def test_what_is_cancelled_while_it_waits_for_the_lock_is_not_done(store: SQLiteStore, path: Path) -> None:
    await store.apply([create("before")])
    lock = Lock(path)
    waiting = [asyncio.ensure_future(store.apply([create(f"never{number}")])) for number in range(3)]
    await asyncio.sleep(0.05)
    for task in waiting:
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*waiting, return_exceptions=True)
    )
    lock.free()
    assert (await store.apply([create("after")])).outcomes[0].accepted
    assert {job.job_id for job in await store.select(Select(), 10)} == {"before", "after"}


async def test_what_is_cancelled_in_the_middle_of_its_transaction_is_done_or_not(
    store: SQLiteStore, path: Path, monkeypatch: Any
) -> None:
    await store.apply([create("before")])
    inside, go = threading.Event(), threading.Event()
    finish = Transaction.finish

    def slow(self: Transaction) -> None:
        inside.set()
        go.wait(20)
        finish(self)

    monkeypatch.setattr(Transaction, "finish", slow)
    task = asyncio.ensure_future(store.apply([create("a"), create("b")]))
    await asyncio.to_thread(inside.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    assert (await store.apply([create("after")])).outcomes[0].accepted
    assert set(check_file(path)) == {"before", "a", "b", "after"}


async def test_what_tasks_write_at_once_is_committed_together(store: SQLiteStore, path: Path, monkeypatch: Any) -> None:
    await store.apply([create("before")])
    commits: list[int] = []
    finish = Transaction.finish

    def slow(self: Transaction) -> None:
        commits.append(1)
        time.sleep(0.01)
        finish(self)

    monkeypatch.setattr(Transaction, "finish", slow)
    bad = create("bad", message="a lone surrogate: \ud800")
    writes = [[create(f"j{number}")] for number in range(200)] + [[bad]]
    ends = await asyncio.gather(*map(store.apply, writes), return_exceptions=True)
    assert isinstance(ends.pop(), UnicodeEncodeError)
    assert all(not isinstance(end, BaseException) and end.outcomes[0].accepted for end in ends)
    assert len(commits) < 20
    assert len(check_file(path)) == 201


async def test_a_bug_in_one_of_a_group_undoes_that_one_alone(store: SQLiteStore, path: Path) -> None:
    await store.apply([create("before")])

    def buggy(tx: Transaction) -> None:
        tx.write(create("half"))
        raise ZeroDivisionError

    lock = Lock(path)  # so that they gather
    works = [store.apply([create("a")]), store._port.write(buggy), store.apply([create("b")])]
    tasks = [asyncio.ensure_future(work) for work in works]
    await asyncio.sleep(0.05)
    lock.free()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(ends[1], ZeroDivisionError)
    assert set(check_file(path)) == {"before", "a", "b"}


async def test_the_patience_of_a_write_has_an_end(path: Path) -> None:
    store = SQLiteStore(path, blocking=False, synchronous="NORMAL", patience=0.2)
    await store.now()
    lock = Lock(path)
    with pytest.raises(StoreUnavailable, match="kept the file locked"):
        await store.apply([create("never")])
    lock.free()
    await store.close()


async def test_many_wait_at_once_and_each_hears(store: SQLiteStore) -> None:
    position = (await store.feed(None)).position
    feeds = [asyncio.ensure_future(store.feed(position, timeout=20)) for _ in range(50)]
    idle = asyncio.ensure_future(store.idle("w", ["q"], 20))
    await asyncio.sleep(0.05)
    threads = threading.active_count()
    assert not any(task.done() for task in (*feeds, idle))
    began = time.monotonic()
    await store.apply([create("a")])
    assert {found.events[0].job_id for found in await asyncio.gather(*feeds)} == {"a"}
    assert await idle
    assert time.monotonic() - began < 10
    assert threads <= 6, "one thread watches for all"


async def test_a_wait_can_be_cancelled(store: SQLiteStore) -> None:
    task = asyncio.ensure_future(store.idle("w", ["q"], 60))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await store.idle("w", ["q"], 0)


async def test_a_blocking_twin_is_told_what_the_other_writes(store: SQLiteStore) -> None:
    twin = store.twin(blocking=True)
    assert twin.twin(blocking=True) is twin
    assert twin.blocking
    heard: list[bool] = []
    thread = threading.Thread(target=lambda: heard.append(drive(twin.idle("w", ["q"], 20))))
    thread.start()
    await asyncio.sleep(0.05)
    await store.apply([create("a")])
    await asyncio.to_thread(thread.join, 20)
    assert heard == [True]
    drive(twin.close())


async def test_closing_leaves_no_threads(path: Path) -> None:
    before = threading.active_count()
    store = SQLiteStore(path, blocking=False, synchronous="NORMAL")
    await store.apply([create("a")])
    await store.idle("w", ["other"], 0.02)
    await store.apply([Write("a", plans.plan_cancel(new_op()))])
    await store.close()
    for _ in range(100):
        if threading.active_count() <= before:
            break
        await asyncio.sleep(0.02)
    assert threading.active_count() <= before
