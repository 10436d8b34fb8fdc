"""Waking those who wait inside one process, on threads and on event loops. Owns the waiting; knows no store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


class Bell:
    """Wakes every waiter whose condition has come true. Used under one lock, which it shares."""

    def __init__(self, lock: threading.RLock) -> None:
        self._condition = threading.Condition(lock)
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def ring(self) -> None:
        """Let all waiters look again. Call with the lock held."""
        self._condition.notify_all()
        for loop, event in tuple(self._waiters):
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # that loop was closed while somebody waited on it
                self._waiters.discard((loop, event))

    async def wait(self, ready: Callable[[], bool], timeout: float, *, blocking: bool) -> bool:
        """Wait until `ready()`, called with the lock held, is true, at most `timeout` seconds; its last answer.

        `blocking` waits in the calling thread and never suspends.
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
