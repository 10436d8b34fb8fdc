"""Callers of this process that wait for a change of their store, in threads or on event loops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from milepost.forks import reset_after_fork

T = TypeVar("T")


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
        """Reset the waiter; call before checking the store, so that no change is missed in between."""
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


class Waiters:
    """The waiters of this process for one store.

    Threads add themselves while another one lists them. So it makes a list: for a tuple Python 3.11 may start the garbage
    collector in the middle, and with it code that lets other threads run.
    """

    def __init__(self) -> None:
        self._waiting: set[Waiter] = set()
        reset_after_fork(self)

    def __bool__(self) -> bool:
        """Return whether there is a waiter."""
        return bool(self._waiting)

    @contextmanager
    def waiter(self, *, feed: bool, blocking: bool) -> Iterator[Waiter]:
        """Register a waiter within the block."""
        waiter = Waiter(feed, None if blocking else asyncio.get_running_loop())
        self._waiting.add(waiter)
        try:
            yield waiter
        finally:
            self._waiting.discard(waiter)

    async def wait(
        self, look: Callable[[], Awaitable[tuple[T, float | None]]], timeout: float, *, feed: bool, blocking: bool
    ) -> T:
        """Call `look` until it finds what is waited for, or `timeout` seconds are over, and return what it found last.

        `look` returns what it found, and after how many seconds it is to be called again if nothing changes; None: it
        found what is waited for.
        """
        if timeout <= 0:
            return (await look())[0]
        deadline = time.monotonic() + timeout
        with self.waiter(feed=feed, blocking=blocking) as waiter:
            while True:
                waiter.clear()
                found, pause = await look()
                left = deadline - time.monotonic()
                if pause is None or left <= 0:
                    return found
                await waiter.wait(min(left, pause))

    def notify(self, *, has_events: bool, wakes_workers: bool) -> None:
        """Wake the waiters that a commit concerns: those for events, those for work, or both."""
        for waiter in list(self._waiting):
            if (has_events and waiter.feed) or (wakes_workers and not waiter.feed):
                waiter.notify()

    def notify_all(self) -> None:
        """Wake all waiters."""
        for waiter in list(self._waiting):
            waiter.notify()

    def after_fork(self) -> None:
        """Forget all waiters: the child has none."""
        self._waiting = set()
