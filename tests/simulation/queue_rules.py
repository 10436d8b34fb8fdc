"""The rules of jobs that a task queue runs: what its messages say, and that none of them is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from milepost.core.placement import starts_at
from tests.simulation.task_queue import LOST_AFTER, NAME

if TYPE_CHECKING:
    from tests.simulation.rules import Rules
    from tests.simulation.task_queue import Broker

QUEUE_RULES = {
    "delivery-leaves-a-message": "P2: a delivery that starts nothing leaves a message, or a record that is due soon",
    "dispatched-once": "P2: two processes do not dispatch a job at the same time, nor before it may start",
    "note-is-of-its-message": "P2: a job is noted as dispatched only if a message was sent for it as it is",
    "reason-is-new": "P5: an event tells a reason why a job is not dispatched once",
}
SOON = 8_000_000
"""Microseconds within which a job is due that has no message: a reservation takes 5 s."""


class QueueRules:
    """Checks the jobs of the task queue of one run of the simulation."""

    def __init__(self, rules: Rules) -> None:
        self._rules, self._fail, self._world, self._server = rules, rules.fail, rules.world, rules.server
        self.broker: Broker | None = None

    def on_write(self, job_id: str, change: Any, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Check an accepted write that leaves a record."""
        name = change.transition.name
        if self.broker is None or old.get("task_queue") != NAME:
            return
        if name == "dispatch":
            self._check_dispatch(job_id, old, new)
        if name == "dispatched" and old["version"] not in self.broker.sent.get(job_id, ()):
            self._fail("note-is-of-its-message", f"version {old['version']} was noted, and not sent")
        if name == "undispatchable" and new["version"] != old["version"] and new.get("stalled") == old.get("stalled"):
            self._fail("reason-is-new", f"{new.get('stalled')} was reported again")

    def _check_dispatch(self, job_id: str, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        now, start, due = self._server.memory.now, starts_at(old), new.get("stale")
        is_draining = self._rules.is_draining(job_id, old)
        if due not in (None, old.get("stale"), old.get("wake_at"), old.get("not_before")):
            may_start = start is not None and start <= now and not is_draining
            if not may_start or int(old.get("stale", now)) > now:
                self._fail("dispatched-once", "a job was reserved that was not due, or may not start")
        if due is not None and int(due) <= now and not is_draining:
            self._fail("dispatched-once", "a job is due again at once")

    def on_delivered(self, job_id: str, began: int) -> None:
        """Called when a delivery has ended, in the process that had the message."""
        memory, broker = self._server.memory, self.broker
        record = memory.records.get(job_id, {})
        if broker is None or record.get("status") != "pending" or self._world.is_over:
            return
        start, now = starts_at(record), memory.tick()
        may_start = (
            start is not None and start <= now < int(record.get("not_after", now + 1)) and job_id not in memory.stops
        )
        was_lost = broker.lost_at.get(job_id, -1) >= began - SOON
        # A job that is to be dispatched by a clock that was ahead is due later.
        was_ahead = any(at >= began for at in self._server.clock_steps)
        left = int(record.get("stale", now)) - now
        is_late = not (was_lost or was_ahead or broker.has(job_id)) and SOON < left <= (LOST_AFTER + 1) * 1e6
        if may_start and is_late:
            self._fail("delivery-leaves-a-message", f"a job has no message, and is due in {left / 1e6:.1f} s")
