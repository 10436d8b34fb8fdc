"""Cache the queue forecast briefly, because all readers share it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from milepost.core.errors import StoreError
from milepost.core.job import Job
from milepost.stores.protocol import Store
from milepost.worker.start_forecast import Forecast, forecast, waits

log = logging.getLogger("milepost.web.start_estimates")
log.addHandler(logging.NullHandler())

CACHE_SECONDS, SHARE = 2.0, 0.05
"""Seconds for which forecasts are cached, longer if computing them would take more than this share of the time."""


class StartEstimates:
    """The queue forecast of pending jobs, shared by all requests of one server."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._forecast: Forecast | None = None
        self._until = 0.0
        self._task: asyncio.Task[None] | None = None

    async def describe(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs. Pending worker jobs get their expected start and what they wait for."""
        if not any(map(waits, jobs)):
            return list(jobs)
        if time.monotonic() >= self._until:
            if self._task is None or self._task.done():
                self._task = asyncio.get_running_loop().create_task(self._read())
            await asyncio.shield(self._task)
        known = self._forecast
        return list(jobs) if known is None else [known.describe(job) for job in jobs]

    async def _read(self) -> None:
        begun = time.monotonic()
        try:
            self._forecast = await forecast(self._store())
        except StoreError as error:
            self._forecast = None
            log.debug("queue forecast unavailable: %s", error)
        now = time.monotonic()
        self._until = now + max(CACHE_SECONDS, (now - begun) / SHARE)
