"""Detects a blocked event loop from another thread, and logs where it is blocked.

The warning goes to the log of the run whose code blocks. The heartbeat sends it while the loop is still blocked.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable

from milepost.run.run import Run

log = logging.getLogger("milepost.worker")

BLOCKED_AFTER = 1.0
CHECK_INTERVAL = 0.25
REPEAT_WARNING_AFTER = 30.0


class LoopWatchdog:
    """Watches one event loop. `run_of` returns the run of one of its tasks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, run_of: Callable[[asyncio.Task[object]], Run | None]) -> None:
        self._loop = loop
        self._run_of = run_of
        self._thread_id = threading.get_ident()
        self._seen = time.monotonic()
        self._is_pinged = False
        self._over = threading.Event()
        self._warned_at = 0.0

    def start(self) -> None:
        """Start to watch."""
        threading.Thread(target=self._watch, name="milepost-watchdog", daemon=True).start()

    def close(self) -> None:
        """Stop to watch."""
        self._over.set()

    def _on_turn(self) -> None:
        self._seen, self._is_pinged = time.monotonic(), False

    def _watch(self) -> None:
        while not self._over.wait(CHECK_INTERVAL):
            now = time.monotonic()
            if not self._is_pinged:
                self._is_pinged = True
                self._seen = now
                try:
                    self._loop.call_soon_threadsafe(self._on_turn)
                except RuntimeError:
                    return  # the loop was closed
            elif now - self._seen > BLOCKED_AFTER and now - self._warned_at > REPEAT_WARNING_AFTER:
                self._warned_at = now
                self._warn(now - self._seen)
            if not self._is_pinged:
                self._warned_at = 0.0

    def _warn(self, blocked: float) -> None:
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
