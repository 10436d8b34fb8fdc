"""How a worker waits: for something to claim, for something of its own to end, for its store to come back.

Owns the one wait at the store that is under way; knows no claim and no execution.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from milepost.core.errors import StoreError
from milepost.stores.protocol import Store

log = logging.getLogger("milepost.worker")

IDLE_SECONDS = 1.0
FULL_SECONDS = 0.02
DUE_LEAST, DUE_MOST = 0.002, 60.0
AWAY_FIRST, AWAY_MOST = 0.05, 5.0


class Waiting:
    """The waiting of one worker. `wake` it when something of its own has happened.

    `told` is called when its name was, and `due` when a scheduled job has come due.
    """

    def __init__(
        self, store: Store, name: str, queues: tuple[str, ...], told: Callable[[], None], due: Callable[[], None]
    ) -> None:
        self.woken = asyncio.Event()
        self._on_due = due
        self._due: asyncio.TimerHandle | None = None
        self._store = store
        self._name = name
        self._queues = queues
        self._told = told
        self._idle: asyncio.Task[bool] | None = None
        self._is_narrow = False
        self._times_away = 0

    @property
    def hears_of_jobs(self) -> bool:
        """Whether a wait is under way that ends when there is something to claim."""
        return self._idle is not None and not self._is_narrow

    def wake(self) -> None:
        """End the wait, in the event loop."""
        self.woken.set()

    def due(self, seconds: float | None) -> None:
        """Say in how many seconds the next scheduled job comes due; None when there is none."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._due = loop.call_later(min(DUE_MOST, max(DUE_LEAST, seconds)), self._came_due)

    def _came_due(self) -> None:
        self._due = None
        self._on_due()
        self.woken.set()

    async def rest(self, *, free: bool) -> bool:
        """Wait until woken, or until the store says so; whether it is worth while to claim then.

        Without free slots the store is only asked for stops, and not at all if a slot comes free at once.
        """
        if self._idle is None:
            if not free and await self.within(FULL_SECONDS):
                return False
            self._is_narrow = not free
            queues = self._queues if free else ()
            self._idle = asyncio.get_running_loop().create_task(self._store.idle(self._name, queues, IDLE_SECONDS))
            self._idle.add_done_callback(lambda _: self.woken.set())
        elif free and self._is_narrow:
            self._is_narrow = False
            await self._end_narrow_wait()
        await self.woken.wait()
        self.woken.clear()
        idle = self._idle
        if not idle.done():
            return False
        self._idle = None
        return await self._after(idle)

    async def _after(self, idle: asyncio.Task[bool]) -> bool:
        error = idle.exception() if not idle.cancelled() else None
        if isinstance(error, StoreError):
            await self.back_off(error)
        elif error is not None:
            raise error
        elif not idle.cancelled() and idle.result() and self._is_narrow:
            self._told()
        return True

    async def _end_narrow_wait(self) -> None:
        try:
            await self._store.nudge(self._name)
        except StoreError as error:
            log.debug("worker %s: %s", self._name, error)

    async def within(self, seconds: float) -> bool:
        """Wait until woken, at most so long; whether it was."""
        try:
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        except TimeoutError:
            return False
        self.woken.clear()
        return True

    async def back_off(self, error: StoreError) -> None:
        """The store is away: wait, longer each time, with jitter."""
        self._times_away += 1
        if self._times_away == 1:
            log.warning("worker %s: the store is away; what runs goes on: %s", self._name, error)
        longest = min(AWAY_MOST, AWAY_FIRST * 2.0 ** min(self._times_away, 10))
        self.woken.clear()
        await self.within(longest * (0.5 + random.random() / 2))
        await asyncio.sleep(AWAY_FIRST)  # what ends meanwhile must not make this a tight loop

    def is_back(self) -> None:
        """The store has answered."""
        self._times_away = 0

    async def close(self) -> None:
        """Give up the wait at the store."""
        self.due(None)
        if self._idle is not None:
            self._idle.cancel()
            await asyncio.gather(self._idle, return_exceptions=True)
