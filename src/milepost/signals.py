"""Runs callbacks at SIGTERM and SIGINT without replacing the handlers of the host program."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)

Handler = Callable[[int, FrameType | None], Any]


class Shutdown:
    """Callbacks for the shutdown signal of this process's server."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []
        self._before: dict[signal.Signals, Handler] = {}

    def add(self, callback: Callable[[], None]) -> None:
        """Call `callback` at the first signal, from the signal handler: it must only set flags or wake a loop."""
        self._callbacks.append(callback)
        self._arm()

    def remove(self, callback: Callable[[], None]) -> None:
        """Remove a callback. Without callbacks the previous handlers are restored."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)
        if not self._callbacks:
            self._disarm()

    def _arm(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread can handle signals
        for number in SIGNALS:
            current = signal.getsignal(number)
            # Without a Python handler there is no server that ends gracefully.
            if callable(current) and current != self._handle:
                self._before[number] = current
                signal.signal(number, self._handle)

    def _disarm(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        for callback in tuple(self._callbacks):
            callback()
        before = self._before.get(signal.Signals(number))
        if before is not None:
            before(number, frame)


shutdown = Shutdown()
