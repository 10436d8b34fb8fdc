"""The signals of one virtual child process: its handlers, and which signals are blocked and wait."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.children import VirtualChild

BLOCKED = "blocked signals"
"""The entry in the memory of a process with what it blocks. A child is started with those of its parent."""
UNNOTICED = 0.2
"""How often a signal comes just before its thread begins to wait, so that Python calls the handler after the wait only.

This happens at most once to each child.
"""


class ChildSignals:
    """What the operating system knows of the signals of a child."""

    def __init__(self, child: VirtualChild, choose: Callable[..., int]) -> None:
        self._child, self._choose = child, choose
        self.has_unnoticed = False
        """Whether the handler of a signal waits for the end of a wait."""
        self.handled_at = -1
        """When a handler was called last."""
        self._had_unnoticed = False
        self._handlers: dict[int, Any] = {}
        self._pending: list[int] = []
        child.memory[BLOCKED] = child.parent.memory.get(BLOCKED, frozenset())

    def take(self, number: int) -> None:
        """Take a signal: it waits while it is blocked."""
        handler = self.handler(number)
        if number in self._child.memory[BLOCKED]:
            self._pending.append(number)
        elif handler is signal.SIG_DFL:
            self._child.end(-number)
        elif handler is not signal.SIG_IGN:
            is_noticed = self._had_unnoticed or not self._choose(f"unnoticed:{self._child.name}", 2, UNNOTICED)
            if not is_noticed:
                self._had_unnoticed = self.has_unnoticed = True

            def call() -> None:
                self.has_unnoticed, self.handled_at = False, self._child.world.now
                handler(number, None)

            self._child.world.interrupt(self._child.threads[0], call, now=is_noticed)

    def handle(self, number: int, handler: Any) -> None:
        """Install a handler."""
        self._handlers[number] = handler

    def handler(self, number: int) -> Any:
        """Return the handler of a signal."""
        return self._handlers.get(number, signal.SIG_DFL)

    def unblock(self, how: int, numbers: Iterable[int]) -> None:
        """Let the signals arrive that have waited, as `signal.pthread_sigmask` does."""
        self._child.memory[BLOCKED] -= frozenset(numbers)
        pending, self._pending = self._pending, []
        for number in pending:
            self.take(number)
