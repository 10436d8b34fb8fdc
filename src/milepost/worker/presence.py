"""That a worker lives: its entry on the shelf, and the types that it has. Owns the beat of both; knows no claim."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from milepost.core.errors import StoreError
from milepost.stores.protocol import Store
from milepost.worker.published import JobType, WorkerEntry, publish, remove_worker, this_host, write_worker

log = logging.getLogger("milepost.worker")

HEARTBEAT = 5.0
KEPT = 4 * HEARTBEAT
PUBLISH_EVERY = 3600.0
RUNNING_SHOWN = 100
SIGN_OFF_SECONDS = 5.0


class Presence:
    """Tells the store every few seconds that a worker lives, what it has and what it runs."""

    def __init__(
        self,
        store: Store,
        name: str,
        types: Collection[JobType],
        concurrency: int,
        running: Callable[[], tuple[tuple[str, ...], bool]],
        on_told: Callable[[], None],
    ) -> None:
        self._store = store
        self._name = name
        self._types = types
        self._concurrency = concurrency
        self._running = running
        self._on_told = on_told
        self._since = time.time()
        self._publish_at = 0.0

    async def keep(self) -> None:
        """Tell it until cancelled; `on_told` is called after the first time, whether or not it arrived."""
        while True:
            try:
                await self.tell()
            except StoreError as error:
                log.debug("worker %s could not say that it lives: %s", self._name, error)
            self._on_told()
            await asyncio.sleep(HEARTBEAT)

    async def tell(self) -> None:
        """Tell it once. Raises StoreError."""
        if time.monotonic() >= self._publish_at:
            await publish(self._store, self._types)
            self._publish_at = time.monotonic() + PUBLISH_EVERY
        running, draining = self._running()
        host, pid = this_host()
        names = tuple(known.name for known in self._types)
        entry = WorkerEntry(
            self._name, host, pid, self._since, time.time(), names, running[:RUNNING_SHOWN], self._concurrency, draining
        )  # fmt: skip
        await write_worker(self._store, entry, KEPT)

    async def sign_off(self) -> None:
        """Say that the worker has ended."""
        try:
            async with asyncio.timeout(SIGN_OFF_SECONDS):
                await remove_worker(self._store, self._name)
        except (StoreError, TimeoutError) as error:
            log.warning("worker %s could not sign off: %s", self._name, error)
