"""The registration of a live worker and its job types in the store, renewed every few seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from milepost.core.errors import StoreError
from milepost.stores.protocol import Store
from milepost.worker.registry import JobType, WorkerEntry, host_and_pid, publish, remove_worker, write_worker

log = logging.getLogger("milepost.worker")

REGISTRATION_INTERVAL = 5.0
REGISTRATION_TTL = 4 * REGISTRATION_INTERVAL
PUBLISH_INTERVAL = 60.0
MAX_RUNNING_SHOWN = 100
UNREGISTER_TIMEOUT = 5.0


class WorkerRegistration:
    """Registers a worker in the store every few seconds, with its types and running jobs."""

    def __init__(
        self,
        store: Store,
        name: str,
        types: Collection[JobType],
        concurrency: int,
        running: Callable[[], tuple[tuple[str, ...], bool]],
        on_registered: Callable[[], None],
    ) -> None:
        self._store = store
        self._name = name
        self._types = types
        self._concurrency = concurrency
        self._running = running
        self._on_registered = on_registered
        self._since = time.time()
        self._publish_at = 0.0
        self._digests = [known.digest for known in types]
        self._history: dict[str, list[str]] = {}
        self._version: int | None = None

    async def keep_registered(self) -> None:
        """Renew the registration until cancelled. `on_registered` is called after the first attempt."""
        while True:
            try:
                await self.renew()
            except StoreError as error:
                log.debug("worker %s: registration not renewed: %s", self._name, error)
            self._on_registered()
            await asyncio.sleep(REGISTRATION_INTERVAL)

    async def renew(self) -> None:
        """Renew the registration, and from time to time publish the types. Raises StoreError."""
        running, draining = self._running()
        host, pid = host_and_pid()
        names = tuple(known.name for known in self._types)
        entry = WorkerEntry(
            self._name, host, pid, self._since, time.time(), names, running[:MAX_RUNNING_SHOWN], self._concurrency, draining
        )  # fmt: skip
        version = await write_worker(self._store, entry, REGISTRATION_TTL, digests=self._digests, version=self._version)
        if version is None:  # the store was emptied, so the published types are gone as well
            self._publish_at = 0.0
            version = await write_worker(self._store, entry, REGISTRATION_TTL, digests=self._digests)
        self._version = version
        if time.monotonic() >= self._publish_at:
            # After the entry: an older worker keeps the types of a newer one while that is registered.
            await publish(self._store, self._types, self._history)
            self._publish_at = time.monotonic() + PUBLISH_INTERVAL

    async def unregister(self) -> None:
        """Remove the registration, because the worker has ended."""
        try:
            async with asyncio.timeout(UNREGISTER_TIMEOUT):
                await remove_worker(self._store, self._name)
        except (StoreError, TimeoutError) as error:
            log.warning("worker %s: not unregistered: %s", self._name, error)
