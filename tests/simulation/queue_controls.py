"""Faults that break the rules of messages, of requests over HTTP, and of claims, to show that these rules can fail."""

from __future__ import annotations

from typing import Any
from unittest import mock

from milepost.core.transitions import operations
from milepost.run import sweeper
from milepost.web.api import submit
from milepost.worker.worker_state import WorkerState
from tests.simulation.known_bugs import Patches, bug


@bug("repeated reason", "the reason why a job is not dispatched is reported again", "reason-is-new")
def _repeated_reason() -> Patches:
    holds = operations.holds
    return [
        mock.patch.object(
            operations, "holds", lambda guard, *rest: guard[:2] == ("ne", "stalled") or holds(guard, *rest)
        )
    ]


@bug("no keys", "a request that is repeated makes another job", "one-job-per-request")
def _no_keys() -> Patches:
    async def make_again(store: Any, principal: Any, key: Any, body: Any, new_id: Any, make: Any) -> Any:
        return await make(new_id())

    return [mock.patch.object(submit, "run_once", make_again)]


@bug("slow begin", "a worker begins what it has claimed seconds later", "claimed-jobs-begin")
def _slow_begin() -> Patches:
    next_step = WorkerState.next

    def next_later(self: Any, now: float, is_written: Any) -> Any:
        return None if self._ready and now - self._ready[0].came_at < 3.0 else next_step(self, now, is_written)

    return [mock.patch.object(WorkerState, "next", next_later)]


@bug("silent absence", "a job never says that no process can dispatch it", "absence-is-reported")
def _silent_absence() -> Patches:
    return [mock.patch.object(sweeper, "UNDISPATCHED_AFTER", 10**12)]
