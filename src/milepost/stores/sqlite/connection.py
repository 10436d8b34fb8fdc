"""One SQLite connection with its lock and its transactions. It is closed before a fork and opened again at the next use."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from milepost.core.errors import StoreUnavailableError
from milepost.forks import close_before_fork, keep_inherited
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
