"""One connection and its lock. Owns beginning, ending and undoing transactions, and what happens at a fork; knows no
verb and no waiting.

No connection crosses a fork: before one, every connection of this process is closed, with nothing under way on it, and
parent and child open their own when they next need them. (A connection that is open while the child opens another
would make SQLite believe there that locks are held which only the parent has.)
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

from milepost.core.errors import StoreUnavailable
from milepost.stores.sqlite.failures import SPOILT, failure, primary, undecodable
from milepost.stores.sqlite.place import Place
from milepost.stores.sqlite.transaction import Reading, Transaction

T = TypeVar("T")

LOOKED_AT_EVERY = 1.0
"""Seconds after which a connection is held against the file of its name, which may have been replaced."""


class Lane:
    """A connection that one thread at a time uses. Opened when first needed, and anew after it was spoilt."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._inode: tuple[int, int] | None = None
        self._looked_at = 0.0
        self._under_way = False
        self._committing = False
        _lanes.add(self)

    def read(self, work: Callable[[Reading], T]) -> T:
        """Do some reading on one state of the file. Raises StoreError, or Busy."""
        return self._run(lambda connection: self._read(connection, work))

    def write(self, work: Callable[[Transaction], T]) -> tuple[T, Transaction]:
        """Do some work in one write transaction, and commit it if it changed something. Raises StoreError, or Busy."""
        return self._run(lambda connection: self._write(connection, work))

    def look(self) -> int:
        """A number that changes when another connection has committed something."""
        return self._run(lambda connection: int(connection.execute("PRAGMA data_version").fetchone()[0]))

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        with self.lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._pid == os.getpid():
                connection.close()

    def __del__(self) -> None:
        self.close()

    # --- inside ---

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self.lock:
            if self._under_way:
                raise StoreUnavailable(f"{self.place.path}: used in a signal handler, in the middle of a transaction")
            self._under_way = True
            try:
                return self._tried(work)
            finally:
                self._under_way = False

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
            if primary(error) in SPOILT:
                self._drop()
            mapped = failure(error, self.place.path, committing=committing)
            if mapped is error:
                raise
            raise mapped from error
        except BaseException:
            self._undo(connection)
            raise

    def _read(self, connection: sqlite3.Connection, work: Callable[[Reading], T]) -> T:
        connection.execute("BEGIN")
        answer = work(Reading(connection, self.place))
        connection.execute("COMMIT")
        return answer

    def _write(self, connection: sqlite3.Connection, work: Callable[[Transaction], T]) -> tuple[T, Transaction]:
        connection.execute("BEGIN IMMEDIATE")
        transaction = Transaction(connection, self.place)
        answer = work(transaction)
        transaction.finish()
        self._committing = transaction.changed
        connection.execute("COMMIT" if transaction.changed else "ROLLBACK")
        return answer, transaction

    def _open(self) -> sqlite3.Connection:
        connection = self._connection
        if connection is not None:
            if self._pid != os.getpid():  # a fork that Python did not see: never touch what belongs to the parent
                _inherited.append(connection)
            elif time.monotonic() - self._looked_at < LOOKED_AT_EVERY or self._same_file():
                return connection
            else:
                connection.close()
            self._connection = None
        self._connection = connection = self.place.open()
        self._pid = os.getpid()
        self._inode = _inode(self.place.path)
        self._looked_at = time.monotonic()
        return connection

    def _same_file(self) -> bool:
        self._looked_at = time.monotonic()
        return _inode(self.place.path) == self._inode

    def _undo(self, connection: sqlite3.Connection | None) -> None:
        if connection is not None:
            try:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._drop()  # closing undoes it

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


_lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
_inherited: list[sqlite3.Connection] = []
_held: list[Lane] = []
_forking = threading.RLock()


def _before_fork() -> None:
    _forking.acquire()
    for lane in sorted(_lanes, key=id):
        lane.lock.acquire()
        _held.append(lane)
        if not lane._under_way:  # else it is this very thread that forks, out of a signal handler: see `_open`
            lane.close()


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().lock.release()
    _forking.release()


def _after_fork_in_child() -> None:
    global _forking
    _forking = threading.RLock()
    for lane in list(_lanes):
        lane.lock = threading.RLock()
        lane._under_way = False
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
