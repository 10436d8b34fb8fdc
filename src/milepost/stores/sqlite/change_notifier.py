"""Notify waiters of this process when the file changes.

Commits of this process notify at once. Commits of others are detected by polling SQLite's `data_version` in one thread
per file with its own connection, as long as there are waiters.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from milepost.core.errors import StoreError
from milepost.forks import ForkSafeLock
from milepost.stores.sqlite.database_file import Busy
from milepost.stores.waiters import Waiter, Waiters

if TYPE_CHECKING:
    from milepost.stores.sqlite.database import Connection

POLL_INTERVAL = 0.01
THREAD_LINGER_SECONDS = 1.0
"""Seconds for which the thread stays without waiters, because the next wait mostly follows at once."""


class ChangeNotifier(Waiters):
    """The waiters of this process for one file, and the thread that watches it for them."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @contextmanager
    def waiter(self, *, feed: bool, blocking: bool) -> Iterator[Waiter]:
        """Register a waiter within the block."""
        with super().waiter(feed=feed, blocking=blocking) as waiter:
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._stop = threading.Event()
                    self._thread = threading.Thread(
                        target=self._poll, args=(self._stop,), name="milepost-sqlite-watch", daemon=True
                    )
                    self._thread.start()
            yield waiter

    def close(self) -> None:
        """End the thread and join it, unless there are waiters."""
        with self._lock:
            if self:
                return
            self._stop.set()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def after_fork(self) -> None:
        """Forget the thread as well."""
        super().after_fork()
        self._lock = threading.Lock()
        self._thread = None

    def _poll(self, stop: threading.Event) -> None:
        seen, idle_since = -1, time.monotonic()
        try:
            while not stop.wait(POLL_INTERVAL):
                if self._waiting:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > THREAD_LINGER_SECONDS:
                    with self._lock:
                        if self._waiting:
                            continue
                        self._thread = None
                        return
                try:
                    version = self._connection.data_version()
                except Busy:
                    continue
                except StoreError:
                    version = -1  # the waiters read the file and get the error themselves
                    stop.wait(0.5)
                if version != seen:
                    seen = version
                    self.notify_all()
        finally:
            self._connection.disconnect()


_watches: weakref.WeakValueDictionary[tuple[str, str], ChangeNotifier] = weakref.WeakValueDictionary()
_lock = ForkSafeLock()


def watch(connection: Connection) -> ChangeNotifier:
    """Return the notifier of the connection's file and namespace, one for all stores of this process."""
    key = (connection.file.path, connection.file.namespace)
    with _lock:
        found = _watches.get(key)
        if found is None:
            found = _watches[key] = ChangeNotifier(connection)
        return found
