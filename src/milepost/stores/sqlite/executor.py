"""Execute transactions in the calling thread (blocking) or in a reader and a writer thread (async).

The threads keep the disk and the locks of other processes from blocking the event loop. Concurrent writes of tasks are
committed together and share one disk flush. No lock is held while waiting for the lock of another process.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from milepost.forks import reset_after_fork
from milepost.stores.sqlite.change_notifier import watch
from milepost.stores.sqlite.connection import Connection
from milepost.stores.sqlite.database_file import Busy, DatabaseFile, still_locked
from milepost.stores.sqlite.transaction import ReadTransaction, WriteTransaction

T = TypeVar("T")
Work = Callable[[WriteTransaction], T]


class Commit(Protocol):
    """Run `work` in a write transaction in the calling thread."""

    def __call__(self, work: Work[T]) -> T: ...


MAX_GROUP = 64
"""The most pieces of work in one transaction, which holds the lock for a few milliseconds."""

FIRST_PAUSE = 0.0005
LONGEST_PAUSE = 0.005


class Executor(Protocol):
    """Where work is executed."""

    async def read(self, work: Callable[[], T]) -> T:
        """Run `work` where reads are executed."""

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a write transaction."""

    async def run_on_writer(self, work: Callable[[], T]) -> T:
        """Run `work` where writes are executed, without a transaction."""

    async def pause(self, seconds: float) -> None:
        """Sleep."""

    def end(self) -> None:
        """Shut the threads down."""


class InlineExecutor:
    """Executes work in the calling thread."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit

    async def read(self, work: Callable[[], T]) -> T:
        return work()

    async def write(self, work: Work[T]) -> T:
        return self._commit(work)

    async def run_on_writer(self, work: Callable[[], T]) -> T:
        return work()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - the blocking executor never suspends

    def end(self) -> None:
        """Do nothing; there are no threads."""


class ThreadExecutor:
    """Executes work in two threads. Work that has begun is completed even if its task is cancelled."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Work[Any], Future[Any]]] = deque()
        self._begin()
        reset_after_fork(self)

    def _begin(self) -> None:
        self._threads = [ThreadPoolExecutor(1, f"milepost-sqlite-{name}") for name in ("read", "write")]

    def after_fork(self) -> None:
        """Leave queued work to the parent, which alone has the threads."""
        self._lock, self._waiting = threading.Lock(), deque()
        self._begin()

    def _submit(
        self, number: int, work: Callable[[], T], waiting: tuple[Work[Any], Future[Any]] | None = None
    ) -> Future[T]:
        """Execute `work` in a thread, and let `waiting` be written; another event loop may end the threads meanwhile."""
        with self._lock:
            if waiting is not None:
                self._waiting.append(waiting)
            return self._threads[number].submit(work)

    async def read(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._submit(0, work))

    async def run_on_writer(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._submit(1, work))

    async def write(self, work: Work[T]) -> T:
        answer = Future[T]()
        self._submit(1, self._write_what_waits, (work, answer))
        return await asyncio.wrap_future(answer)

    def _write_what_waits(self) -> None:
        """Commit the queued work in one transaction."""
        with self._lock:
            taken = [self._waiting.popleft() for _ in range(min(MAX_GROUP, len(self._waiting)))]
        group = [(work, answer) for work, answer in taken if answer.set_running_or_notify_cancel()]
        if not group:
            return
        try:
            ends = self._commit(lambda tx: [_end(tx, work, alone=len(group) == 1) for work, _ in group])
        except BaseException as error:  # noqa: BLE001 - it is raised in the waiting tasks
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
        with self._lock:
            ended = self._threads
            self._begin()
        for thread in ended:
            thread.shutdown(wait=False)


def _end(tx: WriteTransaction, work: Work[T], *, alone: bool) -> tuple[T | None, Exception | None]:
    """Run one piece of work of a group; if it raises, only its own writes are rolled back."""
    if alone:
        return work(tx), None
    tx.savepoint()
    try:
        answer = work(tx)
    except sqlite3.Error:
        raise  # it concerns the file, and so the whole group
    except Exception as problem:  # noqa: BLE001 - it is raised in the task that waits for this work
        tx.undo()
        return None, problem
    tx.release()
    return answer, None


class Database:
    """A reading and a writing connection: in WAL mode a reader never waits for a writer."""

    def __init__(self, file: DatabaseFile, *, blocking: bool) -> None:
        self.file = file
        self.watch = watch(file)
        self._reader, self._writer = Connection(file), Connection(file)
        self._executor: Executor = InlineExecutor(self._commit) if blocking else ThreadExecutor(self._commit)

    async def read(self, work: Callable[[ReadTransaction], T]) -> T:
        """Run `work` in a read transaction. Raises StoreUnavailableError, LayoutMismatchError."""
        return await self._retry_while_locked(lambda: self._executor.read(lambda: self._reader.read(work)))

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a write transaction.

        Raises StoreUnavailableError, StoreFullError, OutcomeUnknownError, LayoutMismatchError.
        """
        return await self._retry_while_locked(lambda: self._executor.write(work))

    def _commit(self, work: Work[T]) -> T:
        answer, transaction = self._writer.write(work)
        self.watch.notify(has_events=transaction.has_events, wakes_workers=transaction.wakes_workers)
        return answer

    async def _retry_while_locked(self, attempt: Callable[[], Awaitable[T]]) -> T:
        try:
            return await attempt()
        except Busy:
            began, pause = time.monotonic(), FIRST_PAUSE
        while True:
            jitter = 0.5 + (time.monotonic_ns() // 1000 & 0xFF) / 256  # so that waiting processes do not retry in step
            await self._executor.pause(pause * jitter)
            try:
                return await attempt()
            except Busy as busy:
                if time.monotonic() - began >= self.file.patience:
                    raise still_locked(self.file.path, self.file.patience) from busy
            pause = min(pause * 1.5, LONGEST_PAUSE)

    async def close(self) -> None:
        """Close the connections and shut the threads down; the next use opens new ones."""
        await self._executor.run_on_writer(self._writer.disconnect)
        await self._executor.read(self._reader.disconnect)
        await self._executor.read(self.watch.close)
        self._executor.end()
