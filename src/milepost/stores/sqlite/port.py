"""The two editions of the way to the file. Owns where work is done, and how long the lock is waited for; knows no verb.

Blocking: in the calling thread. Asynchronous: in two threads of its own, one that reads and one that writes, so that
neither the disk nor another process's lock holds up the event loop; what tasks write at the same time is committed
together, so that they share one flush of the disk. While the lock is waited for nothing is held.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from milepost.stores.sqlite.failures import Busy, still_locked
from milepost.stores.sqlite.lane import Lane
from milepost.stores.sqlite.place import Place
from milepost.stores.sqlite.transaction import Reading, Transaction
from milepost.stores.sqlite.watch import watch

T = TypeVar("T")
Work = Callable[[Transaction], T]


class Commit(Protocol):
    """Do some work in a write transaction, in this thread."""

    def __call__(self, work: Work[T]) -> T: ...


TOGETHER = 64
"""How many works one transaction takes at most: a few milliseconds of the file's lock."""

FIRST_PAUSE = 0.0005
LONGEST_PAUSE = 0.005


class Edition(Protocol):
    """What an edition brings."""

    async def read(self, work: Callable[[], T]) -> T:
        """Do some work where reading is done."""

    async def write(self, work: Work[T]) -> T:
        """Do some work in a write transaction."""

    async def apart(self, work: Callable[[], T]) -> T:
        """Do some work where writing is done, without a transaction."""

    async def pause(self, seconds: float) -> None:
        """Let time pass."""

    def end(self) -> None:
        """Give threads back."""


class InPlace:
    """Work in the calling thread."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit

    async def read(self, work: Callable[[], T]) -> T:
        return work()

    async def write(self, work: Work[T]) -> T:
        return self._commit(work)

    async def apart(self, work: Callable[[], T]) -> T:
        return work()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - the blocking edition never suspends

    def end(self) -> None:
        """Nothing to give back."""


class InThreads:
    """Work in two threads. A task that is cancelled leaves work that has begun to its end: it commits or it does not."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Work[Any], Future[Any]]] = deque()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._threads = [ThreadPoolExecutor(1, f"milepost-sqlite-{name}") for name in ("read", "write")]

    def _thread(self, number: int) -> ThreadPoolExecutor:
        if self._pid != os.getpid():  # threads do not cross a fork, and what waited is the parent's
            self._lock, self._waiting = threading.Lock(), deque()
            self._begin()
        return self._threads[number]

    async def read(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._thread(0).submit(work))

    async def apart(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._thread(1).submit(work))

    async def write(self, work: Work[T]) -> T:
        thread, answer = self._thread(1), Future[T]()
        with self._lock:
            self._waiting.append((work, answer))
        thread.submit(self._write_what_waits)
        return await asyncio.wrap_future(answer)

    def _write_what_waits(self) -> None:
        """Commit, in one transaction, what has gathered since the last one."""
        with self._lock:
            taken = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
        group = [(work, answer) for work, answer in taken if answer.set_running_or_notify_cancel()]
        if not group:
            return
        try:
            ends = self._commit(lambda tx: [_end(tx, work, alone=len(group) == 1) for work, _ in group])
        except BaseException as error:  # noqa: BLE001 - it belongs to those who wait, who raise it
            for _, answer in group:
                answer.set_exception(error)
            return
        for (_, answer), (value, problem) in zip(group, ends, strict=True):
            if problem is not None:
                answer.set_exception(problem)
            else:
                answer.set_result(value)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def end(self) -> None:
        for thread in self._threads:
            thread.shutdown(wait=False)
        self._begin()


def _end(tx: Transaction, work: Work[T], *, alone: bool) -> tuple[T | None, Exception | None]:
    """Do one work of a group: when it raises, what it wrote is undone, and the others stand."""
    if alone:
        return work(tx), None
    tx.savepoint()
    try:
        answer = work(tx)
    except sqlite3.Error:
        raise  # of the file, and so of all
    except Exception as problem:  # noqa: BLE001 - it belongs to the one who waits for this work, and is raised there
        tx.undo()
        return None, problem
    tx.release()
    return answer, None


class Port:
    """Reading and writing, on two connections: in WAL a reader sees what was committed and waits for no writer."""

    def __init__(self, place: Place, *, blocking: bool) -> None:
        self.place = place
        self.watch = watch(place)
        self._reader, self._writer = Lane(place), Lane(place)
        self._edition: Edition = InPlace(self._commit) if blocking else InThreads(self._commit)

    async def read(self, work: Callable[[Reading], T]) -> T:
        """Do some reading on one state of the file. Raises StoreUnavailable, LayoutMismatch."""
        return await self._patiently(lambda: self._edition.read(lambda: self._reader.read(work)))

    async def write(self, work: Work[T]) -> T:
        """Do some work in one write transaction. Raises StoreUnavailable, StoreFull, OutcomeUnknown, LayoutMismatch."""
        return await self._patiently(lambda: self._edition.write(work))

    def _commit(self, work: Work[T]) -> T:
        answer, transaction = self._writer.write(work)
        self.watch.ring(told=transaction.told, stirred=transaction.stirred)
        return answer

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        try:
            return await attempt()
        except Busy:
            began, pause = time.monotonic(), FIRST_PAUSE
        while True:
            jitter = 0.5 + (time.monotonic_ns() // 1000 & 0xFF) / 256  # processes that wait must not move in step
            await self._edition.pause(pause * jitter)
            try:
                return await attempt()
            except Busy as busy:
                if time.monotonic() - began >= self.place.patience:
                    raise still_locked(self.place.path, self.place.patience) from busy
            pause = min(pause * 1.5, LONGEST_PAUSE)

    async def close(self) -> None:
        """Close the connections and end the threads; the next use opens new ones."""
        await self._edition.apart(self._writer.close)
        await self._edition.read(self._reader.close)
        await self._edition.read(self.watch.close)
        self._edition.end()
