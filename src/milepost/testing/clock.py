"""A clock that only moves when a test moves it, for stores that take a `clock` and for tests of time."""

from __future__ import annotations

import threading


class FrozenClock:
    """Returns microseconds since 1970 that do not advance by themselves, as in ``MemoryStore(clock=FrozenClock())``."""

    def __init__(self, micros: int = 1_750_000_000_000_000) -> None:
        self._micros = micros
        self._lock = threading.Lock()

    def __call__(self) -> int:
        return self._micros

    def advance(self, seconds: float) -> int:
        """Move the clock by some seconds, or back if negative; return the new time in microseconds."""
        with self._lock:
            self._micros += round(seconds * 1_000_000)
            return self._micros

    def move_to(self, micros: int) -> None:
        """Set the clock to a time in microseconds since 1970."""
        with self._lock:
            self._micros = micros
