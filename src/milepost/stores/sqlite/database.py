"""The connections to the file, and their transactions: in the calling thread (blocking), or in two threads (async).

A connection is closed before a fork and opened again at the next use. The threads keep the disk and the locks of other
processes from blocking the event loop. Concurrent writes of tasks are committed together and share one disk flush. No lock
is held while waiting for the lock of another process.
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

from milepost.core.errors import StoreUnavailableError
from milepost.forks import close_before_fork, keep_inherited, reset_after_fork
from milepost.stores.sqlite.change_notifier import watch
from milepost.stores.sqlite.database_file import (
    UNUSABLE_AFTER,
    Busy,
    DatabaseFile,
    failure,
    primary,
    still_locked,
    undecodable,
)
from milepost.stores.sqlite.transaction import ReadTransaction, WriteTransaction

T = TypeVar("T")
Work = Callable[[WriteTransaction], T]

MAX_GROUP = 64
"""The most pieces of work in one transaction, which holds the lock for a few milliseconds."""

FIRST_PAUSE = 0.0005
LONGEST_PAUSE = 0.005

FILE_CHECK_INTERVAL = 1.0
"""Seconds after which a connection checks whether its file was replaced."""


class Connection:
    """A connection for one thread at a time, opened at the first use and again after a fatal error."""

    def __init__(self, file: DatabaseFile) -> None:
        self.file = file
        self.lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._inode: tuple[int, int] | None = None
        self._file_checked_at = 0.0
        self.is_busy = False
        self._committing = False
        close_before_fork(self)

    def read(self, work: Callable[[ReadTransaction], T]) -> T:
        """Run `work` in a read transaction. Raises StoreError, or Busy."""
        return self._run(lambda connection: self._read(connection, work))

    def write(self, work: Callable[[WriteTransaction], T]) -> tuple[T, WriteTransaction]:
        """Run `work` in a write transaction, committed if it changed something. Raises StoreError, or Busy."""
        return self._run(lambda connection: self._write(connection, work))

    def data_version(self) -> int:
        """Return a number that changes when another connection commits."""
        return self._run(lambda connection: int(connection.execute("PRAGMA data_version").fetchone()[0]))

    def disconnect(self) -> None:
        """Close the connection; the next use opens a new one."""
        with self.lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._pid == os.getpid():
                connection.close()

    def __del__(self) -> None:
        self.disconnect()

    def after_fork(self) -> None:
        """Replace the lock, which the thread that forked holds."""
        self.lock = threading.RLock()
        self.is_busy = False

    # --- inside ---

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self.lock:
            if self.is_busy:
                raise StoreUnavailableError(
                    f"{self.file.path}: used in a signal handler during a transaction; set a flag there instead"
                )
            self.is_busy = True
            try:
                return self._tried(work)
            finally:
                self.is_busy = False

    def _tried(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = None
        self._committing = False
        try:
            connection = self._open()
            return work(connection)
        except sqlite3.Error as error:
            committing = self._committing
            self._undo(connection)
            if connection is not None and undecodable(error) and connection.text_factory is str:
                connection.text_factory = _tolerant
                return self._tried(work)
            if primary(error) in UNUSABLE_AFTER:
                self._drop()
            mapped = failure(error, self.file.path, committing=committing)
            if mapped is error:
                raise
            raise mapped from error
        except BaseException:
            self._undo(connection)
            raise

    def _read(self, connection: sqlite3.Connection, work: Callable[[ReadTransaction], T]) -> T:
        connection.execute("BEGIN")
        answer = work(ReadTransaction(connection, self.file))
        connection.execute("COMMIT")
        return answer

    def _write(
        self, connection: sqlite3.Connection, work: Callable[[WriteTransaction], T]
    ) -> tuple[T, WriteTransaction]:
        connection.execute("BEGIN IMMEDIATE")
        transaction = WriteTransaction(connection, self.file)
        answer = work(transaction)
        transaction.finish()
        self._committing = transaction.changed
        connection.execute("COMMIT" if transaction.changed else "ROLLBACK")
        return answer, transaction

    def _open(self) -> sqlite3.Connection:
        connection = self._connection
        if connection is not None:
            if self._pid != os.getpid():  # a fork outside of Python: keep the parent's connection untouched
                keep_inherited(connection)
            elif time.monotonic() - self._file_checked_at < FILE_CHECK_INTERVAL or self._same_file():
                return connection
            else:
                connection.close()
            self._connection = None
        self._connection = connection = self.file.open()
        self._pid = os.getpid()
        self._inode = _inode(self.file.path)
        self._file_checked_at = time.monotonic()
        return connection

    def _same_file(self) -> bool:
        self._file_checked_at = time.monotonic()
        return _inode(self.file.path) == self._inode

    def _undo(self, connection: sqlite3.Connection | None) -> None:
        if connection is not None:
            try:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._drop()  # closing rolls back

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _tolerant(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Commit(Protocol):
    """Run `work` in a write transaction in the calling thread."""

    def __call__(self, work: Work[T]) -> T: ...


class InlineExecutor:
    """Executes work in the calling thread."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit

    async def read(self, work: Callable[[], T]) -> T:
        """Run `work` where reads are executed."""
        return work()

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a write transaction."""
        return self._commit(work)

    async def run_on_writer(self, work: Callable[[], T]) -> T:
        """Run `work` where writes are executed, without a transaction."""
        return work()

    async def pause(self, seconds: float) -> None:
        """Sleep."""
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
        self.watch = watch(Connection(file))
        self._reader, self._writer = Connection(file), Connection(file)
        self._executor: InlineExecutor | ThreadExecutor = (
            InlineExecutor(self._commit) if blocking else ThreadExecutor(self._commit)
        )

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
