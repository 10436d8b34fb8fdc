"""Stores in a forked child, which has the locks of its parent and none of its threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from milepost import Run
from milepost.core.transitions import plan_cancel, plan_delete
from milepost.core.transitions.change import TransitionType
from milepost.stores import private_files
from milepost.stores.memory.store import MemoryStore
from milepost.stores.postgres.notifications import Notifications
from milepost.stores.private_files import create_private_file
from milepost.stores.redis import lua_compiler
from milepost.stores.redis.connect import Connector, MasterWatch, parse_redis_url
from milepost.stores.redis.connection import SyncConnectionPool
from milepost.stores.redis.lua_compiler import CompiledTransition, LuaCompiler
from milepost.stores.sqlite import SQLiteStore
from milepost.stores.sync_bridge import run_sync
from milepost.stores.waiters import Waiters
from milepost.testing import fake_run
from tests.forking import at_once, fork
from tests.stores.sqlite.sqlite_fixture import create

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def test_first_threads_of_a_child_share_its_notifications() -> None:
    """Regression: each discarded what the first one had made since. A submit raised "Bad file descriptor" after its commit."""
    notifications = Notifications({"host": "127.0.0.1", "port": "1"}, "schema", Waiters())
    notifications.notify(has_events=True, wakes_workers=True)

    def notify() -> None:
        notifications.notify(has_events=True, wakes_workers=True)

    assert [fork(lambda: at_once(notify)) for _ in range(25)] == [0] * 25
    notifications.close()


def test_first_event_loops_of_a_child_share_a_file(tmp_path: Path) -> None:
    """Regression: the work of one loop was queued for the threads of the parent, and hung."""
    store = SQLiteStore(tmp_path / "jobs.db", blocking=False)
    asyncio.run(store.now())

    def use() -> None:
        asyncio.run(store.now())

    assert [fork(lambda: at_once(use)) for _ in range(25)] == [0] * 25
    asyncio.run(store.close())


def held_by_a_thread(lock: Any, work: Callable[[], int]) -> int:
    """Call a function while another thread holds a lock."""
    held, end = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        return work()
    finally:
        end.set()
        thread.join()


def test_memory_of_a_child_is_not_locked_by_a_thread_of_its_parent() -> None:
    """Regression: a child of a process with a busy worker in memory hung at its first submit."""
    store = MemoryStore()
    run_sync(store.apply([create("one")]))
    assert held_by_a_thread(store._memory.lock, lambda: fork(lambda: run_sync(store.apply([create("two")])))) == 0


def test_child_is_not_locked_by_what_a_thread_of_its_parent_makes(tmp_path: Path) -> None:
    """Regression: a child hung at its first output, step or new file if its parent was making one during the fork."""
    path = tmp_path / "private"
    assert held_by_a_thread(private_files._creating, lambda: fork(lambda: create_private_file(str(path)))) == 0
    assert path.exists()
    assert held_by_a_thread(Run._making, lambda: fork(lambda: fake_run().output("text"))) == 0


def test_child_watches_sentinels_though_its_parent_forked_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a fork while another thread started the watch left its lock held in the child, which hung."""
    pool = SyncConnectionPool()
    connector = Connector(parse_redis_url("redis+sentinel://localhost:1/service"), pool, b"")
    watch = MasterWatch(connector, pool)
    start = threading.Thread.start
    codes: list[int] = []

    def start_and_fork(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        codes.append(fork(watch.start))
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_and_fork)
    watch.start()
    watch.end()
    assert codes == [0]


def test_child_writes_to_redis_though_its_parent_forked_while_it_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: the heartbeat of a child hung at its first request with several kinds of writes."""
    compiler, transitions = LuaCompiler(), [plan_cancel("a").transition, plan_delete("a").transition]
    compile_transition, codes = lua_compiler.compile_transition, list[int]()

    def compile_and_fork(transition: TransitionType) -> CompiledTransition:
        monkeypatch.setattr(lua_compiler, "compile_transition", compile_transition)
        codes.append(fork(lambda: compiler.script(transitions)))
        return compile_transition(transition)

    monkeypatch.setattr(lua_compiler, "compile_transition", compile_and_fork)
    script, numbers = compiler.script(transitions)
    assert codes == [0]
    assert compiler.script(transitions) == (script, numbers)
