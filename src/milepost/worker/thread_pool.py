"""Threads for sync handlers: one function per thread at a time."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger("milepost.worker")

IDLE_SECONDS = 30.0


class ThreadPool:
    """Runs each function in a thread that is free or new. A thread that is idle for 30 s ends."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0
        self._made = 0

    def submit(self, function: Callable[[], None]) -> None:
        """Run a function that raises nothing, without waiting for a free thread."""
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
        """End the idle threads at once, and the others after their work."""
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
                    if self._free == 0:  # a submit has just reserved this thread
                        continue
                    self._free -= 1
                return
            if function is None:
                return
            try:
                function()
            except BaseException:
                log.exception("unexpected error in a worker thread")
            del function
            with self._lock:
                self._free += 1
