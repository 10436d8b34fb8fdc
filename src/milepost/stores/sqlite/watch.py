"""Hearing that the file has changed. Owns the waiting of this process, one watching thread for each file; knows no verb.

What this process commits is rung at once. What others commit is seen in SQLite's `data_version`, looked at every
`LOOK` seconds on a connection of its own, as long as somebody waits.
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
from milepost.stores.sqlite.failures import Busy
from milepost.stores.sqlite.lane import Lane
from milepost.stores.sqlite.place import Place

LOOK = 0.01
LINGER = 1.0
"""Seconds for which the thread stays when nobody waits any more, since the next wait mostly follows at once."""


class Ear:
    """One who waits, in a thread or on an event loop. `feed`: for any event; else only for what may be claimable."""

    def __init__(self, feed: bool, loop: asyncio.AbstractEventLoop | None) -> None:
        self.feed = feed
        self._loop = loop
        self._thread_event = threading.Event() if loop is None else None
        self._loop_event = asyncio.Event() if loop is not None else None

    def ring(self) -> None:
        """Wake who waits; from any thread."""
        if self._thread_event is not None:
            self._thread_event.set()
        elif self._loop is not None and self._loop_event is not None:
            try:
                self._loop.call_soon_threadsafe(self._loop_event.set)
            except RuntimeError:
                pass  # its loop was closed while it waited

    def clear(self) -> None:
        """Begin to listen; to be called before looking, so that nothing is missed in between."""
        for event in (self._thread_event, self._loop_event):
            if event is not None:
                event.clear()

    async def hear(self, seconds: float) -> None:
        """Wait until rung, or for that long."""
        if self._thread_event is not None:
            self._thread_event.wait(seconds)
        elif self._loop_event is not None:
            try:
                async with asyncio.timeout(seconds):
                    await self._loop_event.wait()
            except TimeoutError:
                pass


class Watch:
    """The ears of this process for one file."""

    def __init__(self, place: Place) -> None:
        self._lane = Lane(place)
        self._ears: set[Ear] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @contextmanager
    def ear(self, *, feed: bool, blocking: bool) -> Iterator[Ear]:
        """Listen for as long as the block lasts."""
        ear = Ear(feed, None if blocking else asyncio.get_running_loop())
        with self._lock:
            self._ears.add(ear)
            if self._thread is None or not self._thread.is_alive():
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._look, args=(self._stop,), name="milepost-sqlite-watch", daemon=True
                )
                self._thread.start()
        try:
            yield ear
        finally:
            with self._lock:
                self._ears.discard(ear)

    def ring(self, *, told: bool, stirred: bool) -> None:
        """Wake those whom a commit concerns: events were written; something may be claimable, or a run must stop."""
        if self._ears:
            for ear in tuple(self._ears):
                if (told and ear.feed) or (stirred and not ear.feed):
                    ear.ring()

    def ring_all(self) -> None:
        """Let all look again."""
        for ear in tuple(self._ears):
            ear.ring()

    def close(self) -> None:
        """End the thread and wait for its end, unless somebody listens."""
        with self._lock:
            if self._ears:
                return
            self._stop.set()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def forget(self) -> None:
        """Begin anew in a child process, which has neither the threads nor those who waited."""
        self._lock = threading.Lock()
        self._ears = set()
        self._thread = None

    def _look(self, stop: threading.Event) -> None:
        seen, idle_since = -1, time.monotonic()
        try:
            while not stop.wait(LOOK):
                if self._ears:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > LINGER:
                    with self._lock:
                        if self._ears:
                            continue
                        self._thread = None
                        return
                try:
                    version = self._lane.look()
                except Busy:
                    continue
                except StoreError:
                    version = -1  # who waits looks for himself, and meets the error
                    stop.wait(0.5)
                if version != seen:
                    seen = version
                    self.ring_all()
        finally:
            self._lane.close()


_watches: weakref.WeakValueDictionary[tuple[str, str], Watch] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def watch(place: Place) -> Watch:
    """The watch of a file and namespace, one for all stores of this process."""
    key = (place.path, place.namespace)
    with _lock:
        found = _watches.get(key)
        if found is None:
            found = _watches[key] = Watch(place)
        return found


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for one in list(_watches.values()):
        one.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
