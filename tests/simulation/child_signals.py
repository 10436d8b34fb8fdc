"""The signals of one virtual child process: its handlers, and which signals are blocked and wait."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.children import VirtualChild

BLOCKED = "blocked signals"
"""The entry in the memory of a process with what it blocks. A child is started with those of its parent."""


class ChildSignals:
    """What the operating system knows of the signals of a child."""

    def __init__(self, child: VirtualChild) -> None:
        self._child = child
        self._handlers: dict[int, Any] = {}
        self._pending: list[int] = []
        child.memory[BLOCKED] = child.parent.memory.get(BLOCKED, frozenset())

    def take(self, number: int) -> None:
        """Take a signal: it waits while it is blocked."""
        handler = self._handlers.get(number, signal.SIG_DFL)
        if number in self._child.memory[BLOCKED]:
            self._pending.append(number)
        elif handler is signal.SIG_DFL:
            self._child.end(-number)
        elif handler is not signal.SIG_IGN:
            self._child.world.interrupt(self._child.threads[0], partial(handler, number, None))

    def handle(self, number: int, handler: Any) -> None:
        """Install a handler."""
        self._handlers[number] = handler

    def unblock(self, how: int, numbers: Iterable[int]) -> None:
        """Let the signals arrive that have waited, as `signal.pthread_sigmask` does."""
        self._child.memory[BLOCKED] -= frozenset(numbers)
        pending, self._pending = self._pending, []
        for number in pending:
            self.take(number)
