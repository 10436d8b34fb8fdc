"""Records a task before its message is sent, without blocking `delay()` while the store is unavailable."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from milepost.core.errors import StoreError, StoreUnavailableError

RECORD_SECONDS = 1.0
"""Seconds that a caller of `delay()` waits for the store."""
SKIP_SECONDS = 5.0
"""Seconds after a timeout during which callers do not wait for the store."""


class _Work:
    """One record to write, and the outcome."""

    def __init__(self, write: Callable[[], str]) -> None:
        self.write = write
        self.done = threading.Event()
        self.job_id = ""
        self.error: Exception | None = None

    def run(self) -> None:
        """Write the record."""
        try:
            self.job_id = self.write()
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            self.error = error
        self.done.set()


class Recorder:
    """Writes records in a thread, so that callers can stop waiting."""

    def __init__(self) -> None:
        self._queues: dict[int, SimpleQueue[_Work]] = {}
        """Queues by pid, because a forked process needs its own thread."""
        self._skip_until = 0.0

    def record(self, write: Callable[[], str]) -> str:
        """Run `write` and return its job id, within about a second. Raises StoreError.

        A slower write continues in the thread. The message is then sent without a record, and its delivery creates it.
        """
        if time.monotonic() < self._skip_until:
            raise StoreUnavailableError("the store did not respond a moment ago")
        work = _Work(write)
        self._queue().put(work)
        if not work.done.wait(RECORD_SECONDS):
            self._skip_until = time.monotonic() + SKIP_SECONDS
            raise StoreUnavailableError(f"the store did not respond within {RECORD_SECONDS:g} s")
        if work.error is not None:
            if isinstance(work.error, StoreError):
                self._skip_until = time.monotonic() + SKIP_SECONDS
            raise work.error
        return work.job_id

    def _queue(self) -> SimpleQueue[_Work]:
        pid = os.getpid()
        queue = self._queues.get(pid)
        if queue is None:
            mine: SimpleQueue[_Work] = SimpleQueue()
            queue = self._queues.setdefault(pid, mine)
            if queue is mine:
                threading.Thread(target=_write, args=(queue,), name="milepost-recorder", daemon=True).start()
        return queue


def _write(queue: SimpleQueue[_Work]) -> None:
    while True:
        queue.get().run()
