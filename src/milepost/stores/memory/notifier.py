"""Wakes callers that wait for a condition of a memory store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


class Notifier:
    """Wakes every waiter whose condition became true. Shares the lock of its owner."""

    def __init__(self, lock: threading.RLock) -> None:
        self._condition = threading.Condition(lock)
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def notify(self) -> None:
        """Make all waiters check their condition again. Call with the lock held."""
        self._condition.notify_all()
        for loop, event in tuple(self._waiters):
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # the event loop was closed during the wait
                self._waiters.discard((loop, event))

    async def wait(self, ready: Callable[[], bool], timeout: float, *, blocking: bool) -> bool:
        """Wait at most `timeout` seconds until `ready()` is true, and return its last result.

        `ready` is called with the lock held. With `blocking` the calling thread waits and the coroutine never suspends.
        """
        if blocking:
            with self._condition:
                return self._condition.wait_for(ready, timeout)
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        deadline = loop.time() + timeout
        entry = (loop, event)
        with self._condition:
            self._waiters.add(entry)
        try:
            while True:
                event.clear()
                with self._condition:
                    if ready():
                        return True
                try:
                    async with asyncio.timeout_at(deadline):
                        await event.wait()
                except TimeoutError:
                    with self._condition:
                        return ready()
        finally:
            with self._condition:
                self._waiters.discard(entry)
