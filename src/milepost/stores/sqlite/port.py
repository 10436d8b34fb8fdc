"""The two editions of the way to the file. Owns where work is done, and how long the lock is waited for; knows no verb.

Blocking: in the calling thread. Asynchronous: in two threads of its own, one that reads and one that writes, so that
neither the disk nor another process's lock holds up the event loop. While the lock is waited for nothing is held.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from milepost.stores.sqlite.failures import Busy, still_locked
from milepost.stores.sqlite.lane import Lane
from milepost.stores.sqlite.place import Place
from milepost.stores.sqlite.transaction import Reading, Transaction
from milepost.stores.sqlite.watch import watch

T = TypeVar("T")

FIRST_PAUSE = 0.0005
LONGEST_PAUSE = 0.01


class Executing(Protocol):
    """What an edition brings."""

    async def do(self, lane: int, work: Callable[[], T]) -> T:
        """Do some work in the place of lane 0 (reading) or 1 (writing)."""

    async def pause(self, seconds: float) -> None:
        """Let time pass."""

    def end(self) -> None:
        """Give threads back."""


class InPlace:
    """Work in the calling thread."""

    async def do(self, lane: int, work: Callable[[], T]) -> T:
        return work()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - the blocking edition never suspends

    def end(self) -> None:
        """Nothing to give back."""


class InThreads:
    """Work in a thread a lane. A task that is cancelled leaves work that has begun to its end: it commits or it does not."""

    def __init__(self) -> None:
        self._threads: dict[int, ThreadPoolExecutor] = {}
        self._pid = os.getpid()

    async def do(self, lane: int, work: Callable[[], T]) -> T:
        if self._pid != os.getpid():  # threads do not cross a fork
            self._threads, self._pid = {}, os.getpid()
        thread = self._threads.get(lane)
        if thread is None:
            thread = self._threads[lane] = ThreadPoolExecutor(1, f"milepost-sqlite-{('read', 'write')[lane]}")
        return await asyncio.wrap_future(thread.submit(work))

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def end(self) -> None:
        for thread in self._threads.values():
            thread.shutdown(wait=False)
        self._threads = {}


class Port:
    """Reading and writing, on two connections: in WAL a reader sees what was committed and waits for no writer."""

    def __init__(self, place: Place, *, blocking: bool) -> None:
        self.place = place
        self.watch = watch(place)
        self._reader, self._writer = Lane(place), Lane(place)
        self._edition: Executing = InPlace() if blocking else InThreads()

    async def read(self, work: Callable[[Reading], T]) -> T:
        """Do some reading on one state of the file. Raises StoreUnavailable, LayoutMismatch."""
        return await self._patiently(0, lambda: self._reader.read(work))

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Do some work in one write transaction. Raises StoreUnavailable, StoreFull, OutcomeUnknown, LayoutMismatch."""
        return await self._patiently(1, lambda: self._written(work))

    def _written(self, work: Callable[[Transaction], T]) -> T:
        answer, transaction = self._writer.write(work)
        self.watch.ring(told=transaction.told, stirred=transaction.stirred)
        return answer

    async def apart(self, work: Callable[[], T]) -> T:
        """Do something that takes a while beside the connections."""
        return await self._edition.do(0, work)

    async def _patiently(self, lane: int, work: Callable[[], T]) -> T:
        try:
            return await self._edition.do(lane, work)
        except Busy:
            began, pause = time.monotonic(), FIRST_PAUSE
        while True:
            jitter = 0.5 + (time.monotonic_ns() // 1000 & 0xFF) / 256  # processes that wait must not move in step
            await self._edition.pause(pause * jitter)
            try:
                return await self._edition.do(lane, work)
            except Busy as busy:
                if time.monotonic() - began >= self.place.patience:
                    raise still_locked(self.place.path, self.place.patience) from busy
            pause = min(pause * 1.5, LONGEST_PAUSE)

    async def close(self) -> None:
        """Close the connections and end the threads; the next use opens new ones."""
        await self._edition.do(1, self._writer.close)
        await self._edition.do(0, self._reader.close)
        await self._edition.do(0, self.watch.close)
        self._edition.end()
