"""Faults of the store, one for each rule that no known bug breaks, to show that the rule can fail."""

from __future__ import annotations

from typing import Any
from unittest import mock

from milepost.core.placement import ORPHANS
from milepost.core.schedule import Schedule
from milepost.core.serialization import US
from milepost.core.transitions import operation_ids, operations, plan_suspend
from milepost.run import sweeper
from milepost.run.children import ChildJobs
from milepost.run.execution import LeasedExecution
from milepost.run.heartbeat import LeaseWatch
from milepost.run.heartbeat_state import HeartbeatState, ReportedRun
from milepost.run.run import Run
from milepost.run.step_mixin import StepMixin
from milepost.stores.ids import new_job_id, new_operation_id
from milepost.stores.memory import state as memory_state
from milepost.stores.memory.state import MemoryState
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import Write
from milepost.stores.retention import OPEN
from milepost.stores.sync_bridge import run_sync
from milepost.worker.worker_state import WorkerState
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


@bug("lost record", "a purge removes jobs that have just ended", "acknowledged-is-kept", "purged-in-time")
def _lost_record() -> Patches:
    purge = MemoryStore.purge
    return [mock.patch.object(MemoryStore, "purge", lambda self, before, limit: purge(self, before=OPEN, limit=limit))]


@bug("crashes without end", "a job is tried again however often it crashed", "budgets-hold", "crash-loop-is-named")
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
    return [mock.patch.object(MemoryStore, "_held", return_value=0)]


@bug("no partitions", "the limit of each partition is ignored", "limit-of-key-holds")
def _no_partitions() -> Patches:
    held = MemoryStore._held
    return [mock.patch.object(MemoryStore, "_held", lambda self, slot: 0 if US in slot else held(self, slot))]


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


@bug("no reports", "no progress is sent", "progress-arrives")
def _no_reports() -> Patches:
    return [mock.patch.object(ReportedRun, "news", return_value=({}, None))]


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


# --- running code ---


@bug("no log lines", "no log line is sent", "log-lines-arrive")
def _no_log_lines() -> Patches:
    return [mock.patch.object(Run, "_take_lines", return_value=None)]


@bug("no last log lines", "log lines that no heartbeat has sent are lost when a run ends", "log-lines-are-kept")
def _no_last_log_lines() -> Patches:
    remove = HeartbeatState.remove

    def remove_without_lines(self: HeartbeatState, one: Any, time: float) -> Any:
        return remove(self, one, time)._replace(lines=None)

    return [mock.patch.object(HeartbeatState, "remove", remove_without_lines)]


@bug("repeated log lines", "log lines are sent again with the next ones", "log-lines-in-order")
def _repeated_log_lines() -> Patches:
    take, taken = Run._take_lines, dict[str, str]()

    def take_again(self: Run) -> str | None:
        lines = take(self)
        before = taken.pop(self.token, None)
        if lines is not None:
            taken[self.token] = lines
        return lines or before

    return [mock.patch.object(Run, "_take_lines", take_again)]


def _with_worker_state(**changed: Any) -> Patches:
    init = WorkerState.__init__

    def changed_init(self: Any, slots: int, lease: float, *, max_jobs: int | None = None, **options: Any) -> None:
        more = changed.get("max_jobs", 0)
        options["max_jobs"] = None if max_jobs is None else max_jobs + more
        init(self, slots + changed.get("slots", 0), lease, **options)

    return [mock.patch.object(WorkerState, "__init__", changed_init)]


@bug("one slot more", "a worker runs one job more than it may", "concurrency-holds")
def _one_slot_more() -> Patches:
    return _with_worker_state(slots=1)


@bug("one job more", "a worker begins one job more before it ends", "max-jobs-holds")
def _one_job_more() -> Patches:
    return _with_worker_state(max_jobs=1)


# --- children, jobs that wait, suspended runs, schedules ---


@bug("early release", "a job that waits for others is released at the first sweep", "held-until-group-closes")
def _early_release() -> Patches:
    holds = operations.holds
    return [
        mock.patch.object(MemoryState, "is_to_release", lambda self, group: ("held", group) in self.indexes),
        mock.patch.object(operations, "holds", lambda guard, *rest: guard[0] != "open" and holds(guard, *rest)),
    ]


@bug("counted release", "a member that is still stopping counts as ended", "held-until-group-closes")
def _counted_release() -> Patches:
    def is_open(self: MemoryState, group: str) -> bool:
        kind, _, job_id = group.partition(":")
        return (
            ("member", group, "") in self.indexes if kind != "job" else "completed" not in self.records.get(job_id, {})
        )

    return [mock.patch.object(MemoryState, "is_open", is_open)]


@bug("early suspension", "a suspension is written before the code has returned", "suspension-follows-return")
def _early_suspension() -> Patches:
    suspend = StepMixin._suspend

    def write_first(self: Any, reason: Any, *where: Any) -> None:
        plan = plan_suspend(new_operation_id(), self.token, {}, ran=0, wake_at=reason.wake_at, groups=reason.groups)
        run_sync(self._checkpoint_writer._heartbeat.store.apply([Write(self.job_id, plan)]))
        suspend(self, reason, *where)

    return [mock.patch.object(StepMixin, "_suspend", write_first)]


@bug("charged suspension", "the next segment of a suspended run counts as an attempt", "suspension-changes-no-count")
def _charged_suspension() -> Patches:
    def charge(change: Any, old: Any, new: Any) -> None:
        if change.transition.name == "start" and "suspended" in old:
            new["attempt"] = str(int(new["attempt"]) + 1)

    return _with_effect(charge)


@bug("lost values", "a suspension discards the kept values", "kept-value-stays")
def _lost_values() -> Patches:
    def forget(change: Any, old: Any, new: Any) -> None:
        if change.transition.name == "suspend":
            new.pop("steps", None)

    return _with_effect(forget)


@bug("no parent token", "a stale run makes children", "child-needs-its-parent")
def _no_parent_token() -> Patches:
    return _without_guard("leased")


@bug("new child ids", "a run that starts again makes its children again", "one-child-per-key")
def _new_child_ids() -> Patches:
    return [mock.patch.object(ChildJobs, "id_of", lambda self, key: f"{self._run.token}.{key}")]


@bug("starting orphans", "children of a cancelled job are not cancelled, and start", "orphan-does-not-start")
def _starting_orphans() -> Patches:
    groups_to_check = operations.BranchResult.groups_to_check

    def without_orphans(self: Any, job_id: str) -> list[str]:
        return [group for group in groups_to_check(self, job_id) if not group.startswith(ORPHANS)]

    patch = mock.patch.object(operations.BranchResult, "groups_to_check", without_orphans)
    return [patch, *_without_guard("parented")]


@bug("cancelled children", "the children of a job that was suspended are cancelled", "child-of-open-parent-stays")
def _cancelled_children() -> Patches:
    groups_to_check = operations.BranchResult.groups_to_check

    def with_suspended(self: Any, job_id: str) -> list[str]:
        orphans = [ORPHANS + job_id] if self.event == "suspended" else []
        return groups_to_check(self, job_id) + orphans

    return [
        mock.patch.object(operations.BranchResult, "groups_to_check", with_suspended),
        *_without_guard("orphan"),
    ]


@bug("second tick", "two processes make a job for the same tick, with ids of their own", "one-job-per-tick")
def _second_tick() -> Patches:
    def other_id(self: Any, tick: Any) -> str:
        return new_job_id()

    return [mock.patch.object(Schedule, "job_id", other_id), *_without_guard("value")]


@bug("no ticks", "no process fires schedules", "recovered-in-time")
def _no_ticks() -> Patches:
    async def fire_nothing(*args: Any) -> int:
        return 0

    return [mock.patch.object(sweeper, "fire_due", fire_nothing)]


@bug("early recovery", "leases are recovered seconds before their end", "recovered-when-over")
def _early_recovery() -> Patches:
    holds, due = operations.holds, MemoryStore._due

    def due_early(self: Any, now: int, due_until: int | None, *rest: Any) -> Any:
        return due(self, now, due_until and due_until + 5_000_000, *rest)

    return [
        mock.patch.object(operations, "holds", lambda guard, *rest: guard == ("past", "lease") or holds(guard, *rest)),
        mock.patch.object(MemoryStore, "_due", due_early),
    ]
