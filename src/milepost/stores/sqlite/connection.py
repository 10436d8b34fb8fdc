"""One SQLite connection with its lock, its transactions, and its handling of forks.

Before a fork every idle connection of the process is closed; parent and child open their own at the next use. With an
inherited connection open, SQLite in the child would assume locks that only the parent holds.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from milepost.core.errors import StoreUnavailableError
from milepost.core.instances import Instances
from milepost.stores.sqlite.database_file import UNUSABLE_AFTER, DatabaseFile, failure, primary, undecodable
from milepost.stores.sqlite.transaction import ReadTransaction, WriteTransaction

T = TypeVar("T")

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
        self._is_busy = False
        self._committing = False
        _connections.add(self)

    def read(self, work: Callable[[ReadTransaction], T]) -> T:
        """Run `work` in a read transaction. Raises StoreError, or Busy."""
        return self._run(lambda connection: self._read(connection, work))

    def write(self, work: Callable[[WriteTransaction], T]) -> tuple[T, WriteTransaction]:
        """Run `work` in a write transaction, committed if it changed something. Raises StoreError, or Busy."""
        return self._run(lambda connection: self._write(connection, work))

    def data_version(self) -> int:
        """Return a number that changes when another connection commits."""
        return self._run(lambda connection: int(connection.execute("PRAGMA data_version").fetchone()[0]))

    def close(self) -> None:
        """Close the connection; the next use opens a new one."""
        with self.lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._pid == os.getpid():
                connection.close()

    def __del__(self) -> None:
        self.close()

    # --- inside ---

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self.lock:
            if self._is_busy:
                raise StoreUnavailableError(
                    f"{self.file.path}: used in a signal handler during a transaction; set a flag there instead"
                )
            self._is_busy = True
            try:
                return self._tried(work)
            finally:
                self._is_busy = False

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
                _inherited.append(connection)
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


_connections: Instances[Connection] = Instances()
_inherited: list[sqlite3.Connection] = []
_held: list[Connection] = []
_forking = threading.RLock()


def _before_fork() -> None:
    _forking.acquire()
    for connection in sorted(_connections, key=id):
        connection.lock.acquire()
        _held.append(connection)
        if not connection._is_busy:  # else this thread forks in a signal handler; see `_open`
            connection.close()


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().lock.release()
    _forking.release()


def _after_fork_in_child() -> None:
    global _forking
    _forking = threading.RLock()
    for connection in _connections:
        connection.lock = threading.RLock()
        connection._is_busy = False
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
