"""What objects do around a fork. Before it connections of SQLite are closed; in the child, before its code runs, objects let
go of what belongs to the parent.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")


class Instances(Generic[T]):
    """Objects that are kept only as long as something else needs them. Equal objects are different instances.

    One thread may add while another one iterates. A `WeakSet` raises RuntimeError then: its iteration is Python code,
    in which other threads get their turn.
    """

    def __init__(self) -> None:
        self._by_id: WeakValueDictionary[int, T] = WeakValueDictionary()

    def add(self, instance: T) -> None:
        """Add an instance."""
        self._by_id[id(instance)] = instance

    def __iter__(self) -> Iterator[T]:
        """Iterate over those that lived when the iteration began and still live."""
        for reference in self._by_id.valuerefs():
            if (instance := reference()) is not None:
                yield instance


class Inherited(Protocol):
    """An object that a forked child has as well."""

    def after_fork(self) -> None:
        """Replace locks, which other threads may have held during the fork, and what only the parent may use."""


_objects: Instances[Inherited] = Instances()


def reset_after_fork(instance: Inherited) -> None:
    """Call `after_fork` of an object in each forked child, while there is no other thread that could use it."""
    _objects.add(instance)


class ForkSafeLock:
    """A lock that is free in a forked child, whichever thread of the parent has held it."""

    def __init__(self) -> None:
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class SQLiteConnection(Inherited, Protocol):
    """A connection that is opened when it is needed, by one thread at a time."""

    lock: Any
    """The RLock that is held while it is used."""

    @property
    def is_busy(self) -> bool:
        """Return whether the thread that forks is within a transaction, as in a signal handler."""

    def disconnect(self) -> None:
        """Close it; the next use opens another one."""


_connections: Instances[SQLiteConnection] = Instances()
_held: list[SQLiteConnection] = []
_forking = threading.RLock()
_kept: list[object] = []


def close_before_fork(connection: SQLiteConnection) -> None:
    """Close a connection before each fork: with an inherited one SQLite in the child would assume locks of the parent.

    The parent would then delete the write-ahead log that the child writes to. A connection that is made during a fork has
    to wait for its end, as it could not be closed any more.
    """
    with _forking:
        _connections.add(connection)
    reset_after_fork(connection)


def keep_inherited(connection: object) -> None:
    """Keep a connection of the parent as it is. To close it in the child would release locks of the parent."""
    _kept.append(connection)


def _before_fork() -> None:
    _forking.acquire()
    for connection in sorted(_connections, key=id):
        connection.lock.acquire()
        _held.append(connection)
        if not connection.is_busy:
            connection.disconnect()


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().lock.release()
    _forking.release()


def _after_fork_in_child() -> None:
    global _forking
    _forking = threading.RLock()
    _held.clear()
    for instance in _objects:
        instance.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
