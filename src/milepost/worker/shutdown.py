"""Hearing SIGTERM and SIGINT before the server does its own part of the shutdown. Owns the chain of signal handlers.

uvicorn waits for open responses before it runs the lifespan's shutdown, so a stream that learned of the end there would
never learn of it. While somebody wants to know, our handler stands in front of the server's and calls it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)

Handler = Callable[[int, FrameType | None], Any]


class Shutdown:
    """Those who want to hear of the end of this process's server."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []
        self._before: dict[signal.Signals, Handler] = {}

    def add(self, callback: Callable[[], None]) -> None:
        """Call back at the first signal, from the signal handler: it must only set flags or wake a loop."""
        self._callbacks.append(callback)
        self._arm()

    def remove(self, callback: Callable[[], None]) -> None:
        """Call back no more; when nobody is left the handlers are as they were."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)
        if not self._callbacks:
            self._disarm()

    def _arm(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # a server in a thread gets no signals
        for number in SIGNALS:
            current = signal.getsignal(number)
            # Without a handler in Python there is no server that would end gracefully: nothing to stand in front of.
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
