"""A clock that stands still until it is told to move: for stores that take a `clock`, and for tests of time."""

from __future__ import annotations

import threading


class FrozenClock:
    """Microseconds since 1970 that pass only when asked to. `MemoryStore(clock=FrozenClock())` takes it as it is."""

    def __init__(self, micros: int = 1_750_000_000_000_000) -> None:
        self._micros = micros
        self._lock = threading.Lock()

    def __call__(self) -> int:
        return self._micros

    def advance(self, seconds: float) -> int:
        """Let time pass, or with a negative number jump back; the new time in microseconds."""
        with self._lock:
            self._micros += round(seconds * 1_000_000)
            return self._micros

    def move_to(self, micros: int) -> None:
        """Jump to a moment, in microseconds since 1970."""
        with self._lock:
            self._micros = micros
