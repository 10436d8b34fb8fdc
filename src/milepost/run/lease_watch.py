"""A thread that stops each run whose lease was not renewed in time.

It is separate from the heartbeat, which may wait for the store for longer than a lease.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol


class Leased(Protocol):
    """A run with a lease. `renewed_at` is when its last renewal was sent, on the monotonic clock."""

    renewed_at: float

    def stop_expired(self) -> None:
        """Stop the run, because its lease may be over."""


class LeaseWatch:
    """Stops the runs returned by `watched` one lease after their last renewal was sent."""

    def __init__(self, lease: float, watched: Callable[[], Iterable[Leased]]) -> None:
        self._lease = lease
        self._watched = watched
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._changed = threading.Event()
        self._next = 0.0

    def include(self, renewed_at: float) -> None:
        """Watch a run that `watched` returns from now on."""
        with self._lock:
            if self._thread is None:
                self._next = renewed_at + self._lease
                self._thread = threading.Thread(target=self._watch_leases, name="milepost-lease-watch", daemon=True)
                self._thread.start()
            elif renewed_at + self._lease < self._next:
                self._changed.set()

    def _watch_leases(self) -> None:
        """Wait for the next lease that ends; the thread ends when there was no run for a whole lease."""
        idle = False
        while True:
            self._changed.clear()
            now = time.monotonic()
            deadlines = self._stop_expired(now)
            with self._lock:
                if idle and not deadlines:
                    self._thread = None
                    return
                self._next = min([now + self._lease, *deadlines])
            idle = not deadlines
            self._changed.wait(self._next - now)

    def _stop_expired(self, now: float) -> list[float]:
        """Stop the runs whose lease may be over; return the next deadline of each run.

        It is a function of its own so that no local variable keeps a run that ends during the wait.
        """
        deadlines = []
        for run in self._watched():
            deadline = run.renewed_at + self._lease
            if deadline <= now:
                run.stop_expired()
                deadline = now + self._lease
            deadlines.append(deadline)
        return deadlines
