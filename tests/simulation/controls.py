"""Faults of the store, one for each rule that no known bug breaks, to show that the rule can fail."""

from __future__ import annotations

from typing import Any
from unittest import mock

from milepost.core.transitions import operation_ids, operations
from milepost.run.execution import LeasedExecution
from milepost.run.heartbeat import LeaseWatch
from milepost.run.heartbeat_state import HeartbeatState
from milepost.stores.memory import state as memory_state
from milepost.stores.memory.state import MemoryState
from milepost.stores.memory.store import MemoryStore
from tests.simulation.known_bugs import Patches, bug


def _without_guard(*names: str) -> Patches:
    """Let guards of these kinds always hold."""
    holds = operations.holds
    return [mock.patch.object(operations, "holds", lambda guard, *rest: guard[0] in names or holds(guard, *rest))]


def _with_effect(change_effect: Any) -> Patches:
    """Change the result of each applied branch."""
    apply_branch = operations.apply_branch

    def changed(change: Any, index: int, job_id: str, record: Any, facts: Any) -> Any:
        effect = apply_branch(change, index, job_id, record, facts)
        if effect.record is not None:
            change_effect(change, record or {}, effect.record)
        return effect

    return [mock.patch.object(operations, "apply_branch", changed)]


@bug("lost record", "a purge removes jobs that have just ended", "acknowledged-is-kept")
def _lost_record() -> Patches:
    purge = MemoryStore.purge
    return [mock.patch.object(MemoryStore, "purge", lambda self, ttl, limit: purge(self, ttl=0, limit=limit))]


@bug("crashes without end", "a job is tried again however often it crashed", "budgets-hold")
def _crashes_without_end() -> Patches:
    holds = operations.holds
    return [mock.patch.object(operations, "holds", lambda guard, *rest: guard[0] != "ge" and holds(guard, *rest))]


@bug("lost checkpoint", "a job that is pending again has no checkpoint", "checkpoint-is-passed-on")
def _lost_checkpoint() -> Patches:
    def forget(change: Any, old: Any, new: Any) -> None:
        if old.get("status") == "running" and new["status"] == "pending":
            new.pop("checkpoint", None)

    return _with_effect(forget)


@bug("first checkpoint", "each second checkpoint is written as the first one", "checkpoint-grows")
def _first_checkpoint() -> Patches:
    def go_back(change: Any, old: Any, new: Any) -> None:
        if change.transition.name == "checkpoint" and old.get("checkpoint") == "1":
            new["checkpoint"] = "0"

    return _with_effect(go_back)


@bug("early completion", "a job completes although its code has raised", "completed-code-returned")
def _early_completion() -> Patches:
    outcome = LeasedExecution.outcome
    return [
        mock.patch.object(
            LeasedExecution,
            "outcome",
            lambda self, pending, error, *args, **kw: outcome(self, pending, None, *args, **kw),
        )
    ]


@bug("wrong counts", "failed jobs are counted twice", "counts-match")
def _wrong_counts() -> Patches:
    count = MemoryStore.count

    async def twice(self: Any, select: Any) -> int | None:
        return ((await count(self, select)) or 0) * 2

    return [mock.patch.object(MemoryStore, "count", twice)]


@bug("short list", "each page lacks its last job", "lists-match")
def _short_list() -> Patches:
    select = MemoryStore.select

    async def shorter(self: Any, *args: Any, **options: Any) -> list[Any]:
        return (await select(self, *args, **options))[:-1]

    return [mock.patch.object(MemoryStore, "select", shorter)]


@bug("no draining", "a job starts while its last run is still stopping", "draining-blocks-start")
def _no_draining() -> Patches:
    return [*_without_guard("free"), mock.patch.object(MemoryState, "parked", return_value=False)]


@bug("equal fences", "all leases have the same fence", "fence-grows")
def _equal_fences() -> Patches:
    return [mock.patch.object(MemoryState, "next_fence", return_value=7)]


@bug("kept lease", "a job that has completed keeps its lease", "lease-iff-running")
def _kept_lease() -> Patches:
    def keep(change: Any, old: Any, new: Any) -> None:
        if change.transition.name == "complete":
            new.update(token=old["token"], lease=old["lease"])

    return _with_effect(keep)


@bug("no limits", "the limit of a type is ignored", "limit-holds")
def _no_limits() -> Patches:
    return [mock.patch.object(MemoryStore, "_open", return_value=True)]


@bug("early start", "a job starts before its time", "not-before-holds")
def _early_start() -> Patches:
    entries = memory_state.index_entries

    def at_once(job_id: str, record: Any, **options: Any) -> Any:
        record = {name: text for name, text in record.items() if name != "not_before"}
        return entries(job_id, record, **options)

    return [*_without_guard("startable"), mock.patch.object(memory_state, "index_entries", at_once)]


@bug("no maximum", "each report of a run sets back its progress", "progress-grows")
def _no_maximum() -> Patches:
    def set_back(change: Any, old: Any, new: Any) -> None:
        if change.transition.name == "progress" and float(old.get("progress", 0)) > 0.3:
            new["progress"] = "0.1"

    return _with_effect(set_back)


@bug("no tokens", "reports of a stale run are accepted", "stale-run-writes-nothing")
def _no_tokens() -> Patches:
    return _without_guard("token")


@bug("cancel of ended job", "a cancel changes a job that has ended", "terminal-is-final")
def _cancel_of_ended_job() -> Patches:
    match_branch = operations.match_branch

    def careless(change: Any, job_id: str, record: Any, facts: Any) -> int:
        if change.transition.name == "cancel" and record is not None and record["status"] in ("completed", "failed"):
            record = {**record, "status": "pending"}
        return match_branch(change, job_id, record, facts)

    return [mock.patch.object(operations, "match_branch", careless)]


@bug("skipped versions", "a start takes two versions", "versions-count")
def _skipped_versions() -> Patches:
    def skip(change: Any, old: Any, new: Any) -> None:
        if change.transition.name == "start":
            new["version"] = str(int(new["version"]) + 1)

    return _with_effect(skip)


@bug("no operation ids", "no request is recognised when it is repeated", "applied-once")
def _no_operation_ids() -> Patches:
    return [
        mock.patch.object(operation_ids, "applied_branch", return_value=None),
        mock.patch.object(operation_ids, "is_superseded", return_value=False),
    ]


@bug("no tombstones", "the store forgets which jobs were deleted", "deleted-stays-deleted")
def _no_tombstones() -> Patches:
    return [mock.patch.object(MemoryState, "gone", return_value="")]


@bug("no cancels", "a run is not notified when it is cancelled", "cancel-reaches-code")
def _no_cancels() -> Patches:
    answered = HeartbeatState.answered

    def without_cancelled(self: Any, *args: Any) -> Any:
        return [lost for lost in answered(self, *args) if lost[2] == "lost"]

    return [mock.patch.object(HeartbeatState, "answered", without_cancelled)]


@bug("no stops", "a run is not notified when its lease is lost", "old-run-is-notified")
def _no_stops() -> Patches:
    answered = HeartbeatState.answered

    def without_lost(self: Any, *args: Any) -> Any:
        return [lost for lost in answered(self, *args) if lost[2] != "lost"]

    return [mock.patch.object(HeartbeatState, "answered", without_lost), mock.patch.object(LeaseWatch, "include")]
