"""When pending jobs are expected to start, remembered for a moment: who waits asks often, and the answer is one for all."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from milepost.core.errors import StoreError
from milepost.core.job import Eta, Job, JobStatus
from milepost.stores.protocol import Store
from milepost.worker.expected import expected_starts, told

log = logging.getLogger("milepost.web.expecting")
log.addHandler(logging.NullHandler())

REMEMBERED, SHARE = 2.0, 0.05
"""An answer counts for so many seconds, and longer where it would take more than that share of the time to make."""


class Expected:
    """The expected starts of one site."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._starts: Mapping[str, Eta] = {}
        self._until = 0.0
        self._task: asyncio.Task[None] | None = None

    async def tell(self, job: Job) -> Job:
        """The job; one that waits for a worker with its expected start, where that is known."""
        if job.status is not JobStatus.PENDING or job.driver != "worker":
            return job
        if time.monotonic() >= self._until:
            if self._task is None or self._task.done():
                self._task = asyncio.get_running_loop().create_task(self._read())
            await asyncio.shield(self._task)
        return told(job, self._starts)

    async def _read(self) -> None:
        begun = time.monotonic()
        try:
            self._starts = await expected_starts(self._store())
        except StoreError as error:
            log.debug("when jobs will start is not known: %s", error)
        now = time.monotonic()
        self._until = now + max(REMEMBERED, (now - begun) / SHARE)
