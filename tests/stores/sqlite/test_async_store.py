"""The async store: the file never blocks the event loop, and a cancelled write is complete or absent."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from milepost.core import transitions as plans
from milepost.core.errors import StoreUnavailableError
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Select, Write
from milepost.stores.sqlite import SQLiteStore
from milepost.stores.sqlite.transaction import WriteTransaction
from milepost.stores.sync_bridge import run_sync
from tests.stores.sqlite.sqlite_fixture import check_file, create
from tests.waiting import PATIENCE

pytestmark = pytest.mark.timing


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    """Yield an asynchronous store."""
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


async def test_event_loop_runs_while_file_is_locked(store: SQLiteStore, path: Path) -> None:
    await store.apply([create("before")])
    lock = Lock(path)
    writing = asyncio.ensure_future(store.apply([create("after")]))
    assert await store.get("before") is not None, "reading waits for no writer"
    assert not writing.done()
    lock.free()
    assert (await writing).outcomes[0].accepted


async def test_cancel_while_waiting_for_lock_writes_nothing(store: SQLiteStore, path: Path) -> None:
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


async def test_cancel_in_transaction_is_all_or_nothing(store: SQLiteStore, path: Path, monkeypatch: Any) -> None:
    await store.apply([create("before")])
    inside, go = threading.Event(), threading.Event()
    finish = WriteTransaction.finish

    def slow(self: WriteTransaction) -> None:
        inside.set()
        go.wait(PATIENCE)
        finish(self)

    monkeypatch.setattr(WriteTransaction, "finish", slow)
    task = asyncio.ensure_future(store.apply([create("a"), create("b")]))
    assert await asyncio.to_thread(inside.wait, PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    assert (await store.apply([create("after")])).outcomes[0].accepted
    assert set(check_file(path)) == {"before", "a", "b", "after"}


async def test_concurrent_writes_share_one_commit(store: SQLiteStore, path: Path, monkeypatch: Any) -> None:
    await store.apply([create("before")])
    commits: list[int] = []
    finish = WriteTransaction.finish

    def slow(self: WriteTransaction) -> None:
        commits.append(1)
        time.sleep(0.01)
        finish(self)

    monkeypatch.setattr(WriteTransaction, "finish", slow)
    bad = create("bad", message="a lone surrogate: \ud800")
    writes = [[create(f"j{number}")] for number in range(200)] + [[bad]]
    ends = await asyncio.gather(*map(store.apply, writes), return_exceptions=True)
    assert isinstance(ends.pop(), UnicodeEncodeError)
    assert all(not isinstance(end, BaseException) and end.outcomes[0].accepted for end in ends)
    assert len(commits) < 20
    assert len(check_file(path)) == 201


async def test_failing_write_in_group_is_undone_alone(store: SQLiteStore, path: Path) -> None:
    await store.apply([create("before")])

    def buggy(tx: WriteTransaction) -> None:
        tx.write(create("half"))
        raise ZeroDivisionError

    lock = Lock(path)  # so that they gather
    works = [store.apply([create("a")]), store._database.write(buggy), store.apply([create("b")])]
    tasks = [asyncio.ensure_future(work) for work in works]
    await asyncio.sleep(0.05)
    lock.free()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(ends[1], ZeroDivisionError)
    assert set(check_file(path)) == {"before", "a", "b"}


async def test_write_gives_up_after_lock_timeout(path: Path) -> None:
    store = SQLiteStore(path, blocking=False, synchronous="NORMAL", patience=0.2)
    await store.now()
    lock = Lock(path)
    with pytest.raises(StoreUnavailableError, match="locked by another process"):
        await store.apply([create("never")])
    lock.free()
    await store.close()


async def test_all_concurrent_waiters_wake(store: SQLiteStore) -> None:
    position, others = (await store.feed(None)).position, threading.active_count()
    feeds = [asyncio.ensure_future(store.feed(position, timeout=PATIENCE)) for _ in range(50)]
    wait_for_work = asyncio.ensure_future(store.wait_for_work("w", ["q"], PATIENCE))
    await asyncio.sleep(0.05)
    threads = threading.active_count()
    assert not any(task.done() for task in (*feeds, wait_for_work))
    await store.apply([create("a")])
    assert {found.events[0].job_id for found in await asyncio.gather(*feeds)} == {"a"}
    assert await wait_for_work
    assert threads <= others + 6, "one thread watches for all"


async def test_wait_can_be_cancelled(store: SQLiteStore) -> None:
    task = asyncio.ensure_future(store.wait_for_work("w", ["q"], 60))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await store.wait_for_work("w", ["q"], 0)


async def test_blocking_store_wakes_on_async_write(store: SQLiteStore) -> None:
    with_blocking = store.with_blocking(blocking=True)
    assert with_blocking.with_blocking(blocking=True) is with_blocking
    assert with_blocking.blocking
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(run_sync(with_blocking.wait_for_work("w", ["q"], PATIENCE))))
    thread.start()
    await asyncio.sleep(0.05)
    await store.apply([create("a")])
    await asyncio.to_thread(thread.join, PATIENCE)
    assert woken == [True]
    run_sync(with_blocking.close())


async def test_close_leaves_no_threads(path: Path) -> None:
    before = threading.active_count()
    store = SQLiteStore(path, blocking=False, synchronous="NORMAL")
    await store.apply([create("a")])
    await store.wait_for_work("w", ["other"], 0.02)
    await store.apply([Write("a", plans.plan_cancel(new_operation_id()))])
    await store.close()
    async with asyncio.timeout(PATIENCE):
        while threading.active_count() > before:
            await asyncio.sleep(0.02)
