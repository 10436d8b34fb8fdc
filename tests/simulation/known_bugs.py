"""Bugs that milepost had, each put back by replacing a function, to show that the simulation finds it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import milepost.run.heartbeat as heartbeat
import milepost.run.heartbeat_state as heartbeat_state
import milepost.run.sweeper as sweeper
import milepost.stores.memory.store as memory_store
from milepost.core.errors import JobCancelled, JobPaused, RunStop
from milepost.core.transitions import operation_ids
from milepost.run.checkpoints import StoreCheckpointWriter
from milepost.stores.memory.state import MemoryState
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import SweepResult
from milepost.stores.sweep import Hold
from milepost.web.api import submit
from milepost.worker.message_execution import MessageExecution
from milepost.worker.worker_loop import WorkerLoop
from milepost.worker.worker_state import Step, WorkerState

Patches = list[Any]


@dataclass(frozen=True)
class Bug:
    """A bug: what it is, the rules that it breaks, and the patches that put it back."""

    description: str
    rules: frozenset[str]
    patches: Callable[[], Patches]


BUGS: dict[str, Bug] = {}
"""By name, with those of `controls`."""


def bug(name: str, description: str, *rules: str) -> Callable[[Callable[[], Patches]], Callable[[], Patches]]:
    def register(patches: Callable[[], Patches]) -> Callable[[], Patches]:
        BUGS[name] = Bug(description, frozenset(rules), patches)
        return patches

    return register


@contextmanager
def put_back(name: str | None) -> Iterator[None]:
    """Have a bug within the block; None for none."""
    with ExitStack() as stack:
        for patch in BUGS[name].patches() if name is not None else ():
            stack.enter_context(patch)
        yield


def _without_cap_on_uncharged_crashes() -> Any:
    return mock.patch.object(sweeper, "MAX_UNCHARGED_CRASHES", 1_000_000)


# --- the worker ---


@bug(
    "waiting suspect",
    "a suspect that waits to run alone misses the end of the last other job",
    "every-job-ends",
    "cancel-reaches-code",
)
def _waiting_suspect() -> Patches:
    ended = WorkerState.ended

    def ended_once(self: Any, token: str) -> None:
        ended(self, token)
        self.may_begin_held = not self.running and not self._ready

    next_step = WorkerState.next

    def next_if_seen(self: Any, now: float, is_written: Any) -> Any:
        if self._held is not None and not self._ready and not self.may_begin_held:
            return None
        step = next_step(self, now, is_written)
        if step is not None and step[0] is Step.HOLD:
            self.may_begin_held = not self.running
        return step

    return [mock.patch.object(WorkerState, "ended", ended_once), mock.patch.object(WorkerState, "next", next_if_seen)]


@bug(
    "shared suspect",
    "a suspect runs beside other jobs, so its crash is never charged",
    "suspect-runs-alone",
    "poison-is-charged",
    "every-job-ends",
)
def _shared_suspect() -> Patches:
    return [
        mock.patch.object(WorkerLoop, "_needs_exclusive_run", return_value=False),
        _without_cap_on_uncharged_crashes(),
    ]


@bug(
    "unwritten release",
    "a suspect begins before the release of the jobs claimed with it is written, so its crash seems shared",
    "suspect-runs-alone",
    "poison-is-charged",
    "every-job-ends",
)
def _unwritten_release() -> Patches:
    next_step = WorkerState.next
    return [
        mock.patch.object(WorkerState, "next", lambda self, now, is_written: next_step(self, now, lambda: True)),
        _without_cap_on_uncharged_crashes(),
    ]


@bug(
    "late start",
    "code begins although its lease ended while the reply to the claim was on its way",
    "begins-within-lease",
)
def _late_start() -> Patches:
    init = WorkerState.__init__

    def without_lease(self: Any, slots: int, lease: float, **options: Any) -> None:
        init(self, slots, math.inf, **options)

    return [mock.patch.object(WorkerState, "__init__", without_lease), *_late_thread()]


@bug("late thread", "a process stands still while it starts code, whose lease has ended then", "begins-within-lease")
def _late_thread() -> Patches:
    return [mock.patch.object(StoreCheckpointWriter, "stop_if_expired")]


@bug(
    "cancelled suspect", "a suspect that waits to run alone keeps its lease when it is cancelled", "cancel-reaches-code"
)
def _cancelled_suspect() -> Patches:
    next_step = WorkerState.next

    def without_drop(self: Any, now: float, is_written: Any) -> Any:
        held, is_stopped = self.held, self._is_stopped
        self._is_stopped = lambda execution: execution is not held and is_stopped(execution)
        try:
            return next_step(self, now, is_written)
        finally:
            self._is_stopped = is_stopped

    return [mock.patch.object(WorkerState, "next", without_drop)]


@bug("late claim", "a claim that arrives late starts jobs that no worker runs", "healthy-run-is-kept")
def _late_claim() -> Patches:
    claim_jobs = MemoryStore._claim
    return [
        mock.patch.object(MemoryStore, "_claim", lambda self, claim: claim_jobs(self, replace(claim, number=1 << 40)))
    ]


@bug("left claim", "a worker that drains does not repeat its claim without a reply", "healthy-run-is-kept")
def _left_claim() -> Patches:
    return [mock.patch.object(WorkerLoop, "_release_unanswered")]


@bug("late stop", "a run is stopped only when a request of the heartbeat has given up", "old-run-is-notified")
def _late_stop() -> Patches:
    beat = heartbeat.Heartbeat.beat

    def beat_and_stop(self: Any) -> bool:
        is_busy = beat(self)
        self._watch.stop_expired(self._clock.monotonic())
        return is_busy

    return [
        mock.patch.object(heartbeat.LeaseWatch, "include"),
        mock.patch.object(heartbeat.Heartbeat, "beat", beat_and_stop),
    ]


@bug(
    "pause as cancel",
    "code that learns of its pause when another worker has continued its job takes it for a cancel",
    "stop-has-its-reason",
)
def _pause_as_cancel() -> Patches:
    reason_of = heartbeat_state.stop_reason

    def stop_reason(job: Any, token: str, state: str) -> RunStop:
        reason = reason_of(job, token, state)
        is_mistaken = isinstance(reason, JobPaused) and "suspended" not in job.record
        return JobCancelled("cancelled: paused") if is_mistaken else reason

    return [mock.patch.object(module, "stop_reason", stop_reason) for module in (heartbeat, heartbeat_state)]


# --- the store and the sweep ---


@bug(
    "frozen sweep",
    "nothing is swept while the last sweep is in the future",
    "sweeps-take-place",
    "every-job-ends",
    "no-lease-is-left",
)
def _frozen_sweep() -> Patches:
    sweep = MemoryStore.sweep

    async def skip_future(self: Any, **options: Any) -> SweepResult:
        last = self._memory.last_sweep
        if last is not None and self._memory.tick() < last:
            return SweepResult([], skipped=True)
        return await sweep(self, **options)

    return [mock.patch.object(MemoryStore, "sweep", skip_future)]


@bug("key by time", "the holder of a unique key is the job with the latest creation time", "one-active-per-key")
def _key_by_time() -> Patches:
    def newest(self: Any, key: str) -> str | None:
        orders = self.indexes.get(("key", key), ())
        return str(orders[-1][-1]) if orders else None

    return [mock.patch.object(MemoryState, "key_owner_id", newest)]


@bug("four operation ids", "a record knows its last four operations, callers and runs alike", "applied-once")
def _four_operation_ids() -> Patches:
    width, kept = operation_ids.LAST_WIDTH, 4

    def id_fields(operation_id: str, branch: int, retention: Any, record: Any, *rest: Any) -> dict[str, str]:
        return {"last_ops": f"{record.get('last_ops', '')}{operation_id}{branch}"[-width * kept :]}

    def applied_branch(operation_id: str, retention: Any, record: Any, gone: str = "") -> int | None:
        if record.get("created_by_op") == operation_id:
            return 0
        known = operation_ids._find(operation_id, record.get("last_ops", ""), width)
        return operation_ids._find(operation_id, gone, operation_ids.CALLER_WIDTH) if known is None else known

    return [
        mock.patch.object(operation_ids, "id_fields", id_fields),
        mock.patch.object(operation_ids, "applied_branch", applied_branch),
        mock.patch.object(operation_ids, "is_superseded", return_value=False),
        mock.patch.object(operation_ids, "wait", return_value=0),
    ]


@bug(
    "second outage",
    "the first sweep after a hold recovers also leases that were renewed during it",
    "healthy-run-is-kept",
)
def _second_outage() -> Patches:
    def hold_of(now: int, last: int | None, hold: Hold | None, lease: int) -> tuple[int | None, Hold | None]:
        if hold is not None and now >= hold.until:
            return now, None
        return memory_hold_of(now, last, hold, lease)

    memory_hold_of = memory_store.hold_of
    return [mock.patch.object(memory_store, "hold_of", hold_of)]


@bug(
    "outage within hold",
    "an outage within the hold of an earlier one does not prolong it",
    "healthy-run-is-kept",
)
def _outage_within_hold() -> Patches:
    def hold_of(now: int, last: int | None, hold: Hold | None, lease: int) -> tuple[int | None, Hold | None]:
        due, kept = memory_hold_of(now, last, hold, lease)
        return due, kept and kept._replace(until=kept.since + lease)

    memory_hold_of = memory_store.hold_of
    return [mock.patch.object(memory_store, "hold_of", hold_of)]


@bug(
    "renewal before hold",
    "in a second outage, renewals before the first sweep after an outage do not count",
    "healthy-run-is-kept",
)
def _renewal_before_hold() -> Patches:
    def hold_of(now: int, last: int | None, hold: Hold | None, lease: int) -> tuple[int | None, Hold | None]:
        due, kept = memory_hold_of(now, last, hold, lease)
        return (due if due is None or due == now else due + lease // 4 - 1), kept

    memory_hold_of = memory_store.hold_of
    return [mock.patch.object(memory_store, "hold_of", hold_of)]


@bug(
    "starved sweep",
    "jobs of an absent task queue fill the limit of a sweep",
    "recovered-in-time",
    "no-lease-is-left",
    "every-job-ends",
)
def _starved_sweep() -> Patches:
    sweep, all_due = MemoryStore.sweep, MemoryStore._due

    def one_limit(self: Any, now: int, due_until: Any, task_queue: Any, others_from: int) -> Iterator[Iterator[Any]]:
        yield itertools.chain.from_iterable(all_due(self, now, due_until, task_queue, now))

    async def without_unreached(self: Any, *, unreached: float = 0.0, **options: Any) -> SweepResult:
        found = await sweep(self, **options)
        since = self._memory.now - int(unreached * 1e6)
        due = [item for item in found.due if item.kind != "stale" or int(item.job.record["stale"]) <= since]
        return replace(found, due=due) if hasattr(found, "__dataclass_fields__") else found._replace(due=due)

    return [
        mock.patch.object(MemoryStore, "_due", one_limit),
        mock.patch.object(MemoryStore, "sweep", without_unreached),
    ]


@bug(
    "short tombstones",
    "a late repetition of a submit brings a deleted job back after a jump of the clock",
    "deleted-stays-deleted",
)
def _short_tombstones() -> Patches:
    return [mock.patch.object(operation_ids, "KEPT_MICROS", 60_000_000)]


# --- task queues and HTTP ---


@bug(
    "used message",
    "the message of a job is used up while an earlier job with its unique key is stopping",
    "delivery-leaves-a-message",
)
def _used_message() -> Patches:
    awaited_stop = MessageExecution._awaited_stop

    def of_itself(self: Any, job: Any) -> str:
        return awaited_stop(self, job) if "stop_token" in job.record else ""

    return [mock.patch.object(MessageExecution, "_awaited_stop", of_itself)]


@bug("locked key", "an idempotency key is in progress until the clock reaches a time ahead", "requests-are-answered")
def _locked_key() -> Patches:
    return [mock.patch.object(submit, "abs", lambda value: value, create=True)]
