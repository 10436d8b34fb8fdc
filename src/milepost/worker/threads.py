"""Threads that run sync handlers. Owns a pool of daemon threads, which never keep a process from ending; knows no job.

`concurrent.futures` joins its threads at exit, so one handler that never looks at its cancel would hold the process.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger("milepost.worker")

IDLE_SECONDS = 30.0


class ThreadPool:
    """Runs functions in threads, one each at a time; a thread that is idle for half a minute ends."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0
        self._made = 0

    def submit(self, function: Callable[[], None]) -> None:
        """Run a function that raises nothing, at once, in a thread that is free or new."""
        with self._lock:
            start = self._free == 0
            if start:
                self._made += 1
            else:
                self._free -= 1
        self._work.put(function)
        if start:
            threading.Thread(target=self._serve, name=f"{self._name}-{self._made}", daemon=True).start()

    def close(self) -> None:
        """Let the idle threads end; those that work end after it."""
        with self._lock:
            idle, self._free = self._free, 0
        for _ in range(idle):
            self._work.put(None)

    def _serve(self) -> None:
        while True:
            try:
                function = self._work.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._free == 0:  # a submit has counted on this thread just now
                        continue
                    self._free -= 1
                return
            if function is None:
                return
            try:
                function()
            except BaseException:
                log.exception("a thread of the worker met an unexpected error")
            del function
            with self._lock:
                self._free += 1
