"""The rules of what the heartbeat writes to the log, which tells people why runs were lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.world import Process, VirtualThread

if TYPE_CHECKING:
    from tests.simulation.rules import Rules

LOG_RULES = {
    "delay-is-in-the-log": "the log warns of a delayed heartbeat only if its process stood still",
    "outage-is-in-the-log": "the log says once when the store does not reply to a heartbeat, and once when it replies again",
}
HEARTBEAT = "milepost-heartbeat"
DELAY_MICROS = 100_000
"""Microseconds within which a process that stood still warns of it."""
REPLY_SECONDS = 2.0
"""The longest that a request in progress takes when a fault is over: it waits for a reply, pauses, and is sent again."""


class LogRules:
    """Checks the warnings of one run of the simulation."""

    def __init__(self, rules: Rules) -> None:
        self._rules, self._fail, self._world = rules, rules.fail, rules.world
        self._unanswered: set[Process] = set()
        """The processes whose heartbeat had no reply to its last request."""
        self._warned: set[Process] = set()
        """Those that have said that the store is unavailable, and not yet that it is available again."""

    def on_no_reply(self, thread: VirtualThread) -> None:
        """Note that a request was given up."""
        if thread.name.endswith(HEARTBEAT):
            self._unanswered.add(thread.process)

    def on_call(self, thread: VirtualThread) -> None:
        """Check, at the next request, that the last one without a reply is in the log."""
        process = thread.process
        if process in self._unanswered and thread.name.endswith(HEARTBEAT):
            self._unanswered.discard(process)
            if process not in self._warned:
                self._fail("outage-is-in-the-log", f"{thread.name} did not say that the store is unavailable")

    def on_warning(self, logger: str, text: str) -> None:
        """Check a warning."""
        thread, now = self._world.current, self._world.now
        if thread is None or logger != "milepost.heartbeat":
            return
        process = thread.process
        is_true = True
        if text.startswith("heartbeat delayed") and now - process.paused_until > DELAY_MICROS:
            self._fail("delay-is-in-the-log", f"{thread.name}: {text[:40]}")
        elif text.startswith("store unavailable"):
            is_true = process in self._unanswered and process not in self._warned
            self._warned.add(process)
        elif text.startswith("store available again"):
            is_true = process in self._warned
            self._warned.discard(process)
        if not is_true:
            self._fail("outage-is-in-the-log", f"{thread.name} said without reason: {text}")

    def at_rest(self) -> None:
        """Check that no process that sweeps still says that the store is unavailable.

        Without runs a heartbeat asks again only at its next sweep. The last fault of a process may end just before the rest.
        """
        settings = self._rules.settings
        since = self._world.now - (settings.sweep_interval + settings.heartbeat + REPLY_SECONDS) * 1e6
        for process in self._warned:
            if process.name.startswith(("worker", "server")) and self._rules.is_undisturbed(process, since):
                self._fail("outage-is-in-the-log", f"{process.name} did not say that the store is available again")
