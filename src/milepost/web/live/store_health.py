"""Probe the store while clients watch a list, so that pages report an unavailable store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from milepost.core.errors import MilepostError, StoreError, StoreUnavailableError
from milepost.stores.protocol import Store
from milepost.web.http.problems import Problem

log = logging.getLogger("milepost.web.live.store_health")
log.addHandler(logging.NullHandler())

PROBE_INTERVAL = 1.0
PROBE_TIMEOUT = 2.0
_NAMES = {"redis": "Redis", "rediss": "Redis", "sqlite": "SQLite", "postgresql": "PostgreSQL"}


class StoreHealth:
    """Whether the store responds. `changed` is called after each change."""

    def __init__(self, store: Callable[[], Store], changed: Callable[[], None]) -> None:
        self._store = store
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self.is_down = False

    def start(self) -> None:
        """Start probing, unless it is running."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Stop probing. The next start assumes an available store."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.is_down = False

    def to_dict(self) -> dict[str, object]:
        """Return the state as JSON types."""
        scheme = self._store().url.partition(":")[0].partition("+")[0]
        return {"ok": not self.is_down, "store": _NAMES.get(scheme, "The store")}

    def problem(self, error: StoreError | None = None) -> Problem:
        """Return the refusal of a stream that names the store, as `to_dict` does."""
        error = error or StoreUnavailableError("it does not respond")
        log.warning("stream refused; job store unavailable: %s", error)
        names = {"error": type(error).__name__, "store": self.to_dict()["store"]}
        return Problem(503, "The job store is unavailable", headers={"Retry-After": "2"}, **names)

    async def _run(self) -> None:
        while True:
            probe = asyncio.get_running_loop().create_task(self._probe())
            try:
                # Not cancelled at the timeout, so that a hanging store gets no further requests.
                await asyncio.wait((probe,), timeout=PROBE_TIMEOUT)
                self._note(not probe.done() or not probe.result())
                self._note(not await probe)
            finally:
                probe.cancel()
            await asyncio.sleep(PROBE_INTERVAL)

    async def _probe(self) -> bool:
        try:
            await self._store().now()
        except (MilepostError, OSError):
            return False
        return True

    def _note(self, is_down: bool) -> None:
        if is_down != self.is_down:
            self.is_down = is_down
            self._changed()
