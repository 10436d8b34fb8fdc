"""Notify waiters of this process when the file changes.

Commits of this process notify at once. Commits of others are detected by polling SQLite's `data_version` in one thread
per file with its own connection, as long as there are waiters.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from milepost.core.errors import StoreError
from milepost.stores.sqlite.connection import Connection
from milepost.stores.sqlite.database_file import Busy, DatabaseFile

POLL_INTERVAL = 0.01
THREAD_LINGER_SECONDS = 1.0
"""Seconds for which the thread stays without waiters, because the next wait mostly follows at once."""


class Waiter:
    """One waiter, in a thread or on an event loop. `feed`: it waits for any event, else only for claimable jobs."""

    def __init__(self, feed: bool, loop: asyncio.AbstractEventLoop | None) -> None:
        self.feed = feed
        self._loop = loop
        self._thread_event = threading.Event() if loop is None else None
        self._loop_event = asyncio.Event() if loop is not None else None

    def notify(self) -> None:
        """Wake the waiter, from any thread."""
        if self._thread_event is not None:
            self._thread_event.set()
        elif self._loop is not None and self._loop_event is not None:
            try:
                self._loop.call_soon_threadsafe(self._loop_event.set)
            except RuntimeError:
                pass  # its event loop was closed during the wait

    def clear(self) -> None:
        """Reset the waiter; call before checking the file, so that no change is missed in between."""
        for event in (self._thread_event, self._loop_event):
            if event is not None:
                event.clear()

    async def wait(self, seconds: float) -> None:
        """Wait until notified, or for this many seconds."""
        if self._thread_event is not None:
            self._thread_event.wait(seconds)
        elif self._loop_event is not None:
            try:
                async with asyncio.timeout(seconds):
                    await self._loop_event.wait()
            except TimeoutError:
                pass


class ChangeNotifier:
    """The waiters of this process for one file."""

    def __init__(self, file: DatabaseFile) -> None:
        self._connection = Connection(file)
        self._waiters: set[Waiter] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @contextmanager
    def waiter(self, *, feed: bool, blocking: bool) -> Iterator[Waiter]:
        """Register a waiter within the block."""
        waiter = Waiter(feed, None if blocking else asyncio.get_running_loop())
        with self._lock:
            self._waiters.add(waiter)
            if self._thread is None or not self._thread.is_alive():
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._poll, args=(self._stop,), name="milepost-sqlite-watch", daemon=True
                )
                self._thread.start()
        try:
            yield waiter
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def notify(self, *, has_events: bool, wakes_workers: bool) -> None:
        """Wake the waiters that a commit concerns: those for events, those for work, or both."""
        if self._waiters:
            for waiter in tuple(self._waiters):
                if (has_events and waiter.feed) or (wakes_workers and not waiter.feed):
                    waiter.notify()

    def notify_all(self) -> None:
        """Wake all waiters."""
        for waiter in tuple(self._waiters):
            waiter.notify()

    def close(self) -> None:
        """End the thread and join it, unless there are waiters."""
        with self._lock:
            if self._waiters:
                return
            self._stop.set()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def forget(self) -> None:
        """Reset in a forked child, which has neither the thread nor the waiters."""
        self._lock = threading.Lock()
        self._waiters = set()
        self._thread = None

    def _poll(self, stop: threading.Event) -> None:
        seen, idle_since = -1, time.monotonic()
        try:
            while not stop.wait(POLL_INTERVAL):
                if self._waiters:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > THREAD_LINGER_SECONDS:
                    with self._lock:
                        if self._waiters:
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
            self._connection.close()


_watches: weakref.WeakValueDictionary[tuple[str, str], ChangeNotifier] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def watch(file: DatabaseFile) -> ChangeNotifier:
    """Return the notifier of a file and namespace, one for all stores of this process."""
    key = (file.path, file.namespace)
    with _lock:
        found = _watches.get(key)
        if found is None:
            found = _watches[key] = ChangeNotifier(file)
        return found


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for one in list(_watches.values()):
        one.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
