"""Noticing a blocked event loop, from another thread. Owns the measuring and the words; knows no store: what it notices goes
into the log of the run whose code blocks, and the pulse carries it while the loop is blocked still.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable

from milepost.tracking.run import Run

log = logging.getLogger("milepost.worker")

BLOCKED_AFTER = 1.0
LOOKS_EVERY = 0.25
TOLD_AGAIN_AFTER = 30.0


class Watchdog:
    """Watches one event loop. `run_of` gives the run of a task of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, run_of: Callable[[asyncio.Task[object]], Run | None]) -> None:
        self._loop = loop
        self._run_of = run_of
        self._thread_id = threading.get_ident()
        self._seen = time.monotonic()
        self._asked = False
        self._over = threading.Event()
        self._told_at = 0.0

    def start(self) -> None:
        """Watch from now on."""
        threading.Thread(target=self._watch, name="milepost-watchdog", daemon=True).start()

    def close(self) -> None:
        """Watch no more."""
        self._over.set()

    def _turned(self) -> None:
        self._seen, self._asked = time.monotonic(), False

    def _watch(self) -> None:
        while not self._over.wait(LOOKS_EVERY):
            now = time.monotonic()
            if not self._asked:
                self._asked = True
                self._seen = now
                try:
                    self._loop.call_soon_threadsafe(self._turned)
                except RuntimeError:
                    return  # the loop was closed
            elif now - self._seen > BLOCKED_AFTER and now - self._told_at > TOLD_AGAIN_AFTER:
                self._told_at = now
                self._tell(now - self._seen)
            if not self._asked:
                self._told_at = 0.0

    def _tell(self, blocked: float) -> None:
        frame = sys._current_frames().get(self._thread_id)
        where = "unknown code"
        if frame is not None:
            where = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        text = f"the event loop has been blocked for {blocked:.1f} s, in {where}; await, or use a sync handler"
        task = asyncio.current_task(self._loop)
        run = self._run_of(task) if task is not None else None
        if run is not None:
            run.log(text, "warning")
            log.warning("job %s (%s): %s", run.job_id, run.job_type, text)
        else:
            log.warning("%s", text)
