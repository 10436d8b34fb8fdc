"""How a worker waits: for jobs to claim, for its own runs to end, and for an unavailable store."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Literal

from milepost.core.errors import LeaseHeldError, OutcomeUnknownError, StoreError
from milepost.run.heartbeat import Outage
from milepost.settings import Settings
from milepost.stores.protocol import Store

log = logging.getLogger("milepost.worker")

IDLE_WAIT_SECONDS = 1.0
BUSY_WAIT_SECONDS = 0.02
NORMAL_EMPTY_CLAIMS = 2
MIN_DUE_SECONDS, MAX_DUE_SECONDS = 0.002, 60.0
MIN_BACKOFF, MAX_BACKOFF = 0.05, 5.0


class Idle:
    """The waiting of one worker. `wake` it when a run of its own has ended.

    `on_wake` is called when a run of the worker may be to stop, `due` when a scheduled job becomes due.
    """

    def __init__(
        self, store: Store, name: str, queues: tuple[str, ...], on_wake: Callable[[], None], due: Callable[[], None]
    ) -> None:
        self.woken = asyncio.Event()
        self._on_due = due
        self._due: asyncio.TimerHandle | None = None
        self._store = store
        self._name = name
        self._queues = queues
        self._on_wake = on_wake
        self._store_wait: asyncio.Task[bool | Literal["worker"]] | None = None
        self._only_wakeups = False
        self._has_ended_wait = False
        """Whether this worker has woken itself, to wait for jobs too."""
        self._was_ready = False
        self._empty_claims = 0
        """Claims in a row that found nothing although the store had reported a job."""
        self._failures = 0
        self._outage = Outage(log, "running jobs continue", f"worker {name}")

    @property
    def is_waiting_for_jobs(self) -> bool:
        """Return whether a wait for jobs is in progress in the store."""
        return self._store_wait is not None and not self._only_wakeups

    @property
    def is_store_down(self) -> bool:
        """Return whether the last request failed."""
        return self._outage.is_active

    def wake(self) -> None:
        """End the wait. Called in the event loop."""
        self.woken.set()

    def due(self, seconds: float | None) -> None:
        """Set the seconds until the next scheduled job becomes due; None if there is none."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._due = loop.call_later(min(MAX_DUE_SECONDS, max(MIN_DUE_SECONDS, seconds)), self._came_due)

    def _came_due(self) -> None:
        self._due = None
        self._on_due()
        self.woken.set()

    async def wait_for_wake(self, *, free: bool) -> bool:
        """Wait until woken by this process or by the store; return whether a claim is worthwhile.

        Without free slots the store is asked for stops only, and not at all if a slot becomes free at once.
        """
        if self._store_wait is None:
            if (pause := self._pause(free=free)) and await self.wait_at_most(pause):
                return False
            self._only_wakeups, self._has_ended_wait = not free, False
            queues = self._queues if free else ()
            self._store_wait = asyncio.get_running_loop().create_task(
                self._store.wait_for_work(self._name, queues, IDLE_WAIT_SECONDS)
            )
            self._store_wait.add_done_callback(lambda _: self.woken.set())
        elif free and self._only_wakeups:
            self._only_wakeups, self._has_ended_wait = False, True
            await self._end_wakeup_wait()
        store_wait = self._store_wait
        if not store_wait.done():  # else its end may have ended a pause, which has cleared the event
            await self.woken.wait()
        self.woken.clear()
        if not store_wait.done():
            return False
        self._store_wait = None
        return await self._after(store_wait)

    def _pause(self, *, free: bool) -> float:
        """Return the seconds before the next wait in the store: more with each empty claim.

        The first ones are normal: another worker took the job. Later ones are caused by jobs that no worker may start.
        """
        beyond = self._empty_claims - NORMAL_EMPTY_CLAIMS
        if beyond > 0:
            return min(IDLE_WAIT_SECONDS, BUSY_WAIT_SECONDS * 2.0 ** min(beyond, 10))
        return 0.0 if free else BUSY_WAIT_SECONDS

    def on_claim(self, *, is_empty: bool) -> None:
        """Note the answer to a claim."""
        self._empty_claims = self._empty_claims + 1 if is_empty and self._was_ready else 0
        self._was_ready = False

    async def _after(self, store_wait: asyncio.Task[bool | Literal["worker"]]) -> bool:
        error = store_wait.exception() if not store_wait.cancelled() else None
        if isinstance(error, StoreError):
            await self.back_off(error)
        elif error is not None:
            raise error
        elif not store_wait.cancelled() and not self._has_ended_wait:
            reason = store_wait.result()
            self._was_ready = reason is True
            if reason == "worker" or (reason and self._only_wakeups):
                self._on_wake()
            return reason != "worker"
        return True

    async def _end_wakeup_wait(self) -> None:
        try:
            await self._store.wake(self._name)
        except StoreError as error:
            log.debug("worker %s: %s", self._name, error)

    async def wait_at_most(self, seconds: float) -> bool:
        """Wait until woken, for at most `seconds`; return whether it was woken."""
        try:
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        except TimeoutError:
            return False
        self.woken.clear()
        return True

    async def check_health(self, settings: Settings, is_stopping: Callable[[], bool]) -> None:
        """With MILEPOST_STRICT, wait for the store. Closes it and raises StoreError if it fails its health check."""
        while settings.strict and not is_stopping():
            try:
                return (await self._store.check_health()).require_no_warnings()
            except StoreError as error:
                if not isinstance(error, OutcomeUnknownError) and not getattr(error, "temporary", False):
                    await self._store.close()
                    raise
                await self.back_off(error)
        return None

    async def back_off(self, error: StoreError | LeaseHeldError) -> None:
        """Wait after a failed request, longer each time, with jitter."""
        self._failures += 1
        if isinstance(error, LeaseHeldError):
            log.warning("outcomes not written, trying again: %s", error)
        else:
            self._outage.failed(error)
        longest = min(MAX_BACKOFF, MIN_BACKOFF * 2.0 ** min(self._failures, 10))
        self.woken.clear()
        await self.wait_at_most(longest * (0.5 + random.random() / 2))
        await asyncio.sleep(MIN_BACKOFF)  # runs that end meanwhile must not turn this into a busy loop

    def on_store_reply(self) -> None:
        """Note that the store replied."""
        self._failures = 0
        self._outage.answered()

    async def close(self) -> None:
        """Cancel the wait in the store."""
        self.due(None)
        if self._store_wait is not None:
            self._store_wait.cancel()
            await asyncio.gather(self._store_wait, return_exceptions=True)
