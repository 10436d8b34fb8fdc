"""The rules of children, of jobs that wait for others, of suspended runs, and of schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from milepost.core.placement import PAUSED, awaited_groups, member_groups, parent_of
from milepost.core.schedule import SCHEDULES, Schedule
from milepost.core.serialization import US, to_micros
from milepost.core.transitions.table import ACTIVE, PENDING
from milepost.run.run import Run
from tests.simulation.network import Server

DEPENDENCY_RULES = {
    "awaited-job-is-known": "P1: a submit after a job that does not exist is refused",
    "child-needs-its-parent": "I30: a child is made only under the token with which its parent runs",
    "child-of-open-parent-stays": "I31: no child is cancelled because of a parent that is open or has completed",
    "held-until-group-closes": "I27: a job is held while a member of a group that it waits for is open or stopping",
    "kept-value-stays": "I29: a kept key has one value",
    "one-child-per-key": "I30: each parent and key has at most one child",
    "one-job-per-tick": "I32: each schedule and tick has at most one job",
    "release-has-its-event": "I27: a held job that may start is reported",
    "orphan-does-not-start": "I31: no child starts when its parent has failed, was cancelled or deleted",
    "suspension-changes-no-count": "I34: attempt, crashes, progress and start are the same after a suspension",
    "suspension-follows-return": "I28: a suspension is written when the code of the run has returned",
}
KEPT_IN_SUSPENSION = ("attempt", "crashes", "started")
KEPT_AT_NEXT_START = (*KEPT_IN_SUSPENSION, "progress")


class DependencyRules:
    """Checks the writes of one run. `fail` reports a violation."""

    def __init__(self, server: Server, fail: Callable[[str, str], None]) -> None:
        self._server, self._fail = server, fail
        self._children: dict[tuple[str, str, str], str] = {}
        self._ticks: set[str] = set()
        self._values: dict[tuple[str, str], Any] = {}

    def on_write(self, job_id: str, change: Any, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Check an accepted write that leaves a record."""
        name = change.transition.name
        if name == "create":
            self._check_creation(job_id, change, new)
        if name in ("create", "suspend", "release_held") and new["status"] == PENDING and "held" not in new:
            # `after` only delays the first start; a member that is retried later holds nothing.
            for group in awaited_groups(new) if name != "suspend" or "wait_groups" in new else ():
                if member := next(self._open_members(group), None):
                    self._fail("held-until-group-closes", f"not held after {name}, although {member[-6:]} is open")
        if "held" in old and "held" not in new and new["version"] == old["version"]:
            self._fail("release-has-its-event", f"{name} released a held job without an event")
        if name == "suspend" or (name == "start" and "suspended" in old):
            for field in KEPT_IN_SUSPENSION if name == "suspend" else KEPT_AT_NEXT_START:
                if old.get(field) != new.get(field):
                    text = f"{name} changed {field} from {old.get(field)} to {new.get(field)}"
                    self._fail("suspension-changes-no-count", text)
        if name == "start" and "child_key" in new and "detached" not in new:
            parent = self._server.memory.records.get(parent_of(new), {"status": "deleted"})
            if parent["status"] in ("failed", "cancelled", "deleted"):
                self._fail("orphan-does-not-start", f"a child started, and its parent is {parent['status']}")
        if name == "cancel_orphan":
            parent = self._server.memory.records.get(parent_of(new), {"status": "deleted"})
            if parent["status"] in (*ACTIVE, "completed"):
                self._fail("child-of-open-parent-stays", f"a child was cancelled, and its parent is {parent['status']}")

    def _check_creation(self, job_id: str, change: Any, new: Mapping[str, str]) -> None:
        for name in [name for name in self._values if name[0] == job_id]:
            del self._values[name]  # of an earlier job with this id, which was removed
        if "child_key" in new:
            parent_id, token = parent_of(new), change.values[-2]
            parent = self._server.memory.records.get(parent_id, {})
            if parent.get("status") != "running" or parent.get("token") != token:
                self._fail("child-needs-its-parent", f"a child was made, and its parent is {parent.get('status')}")
            known = self._children.setdefault((parent_id, parent.get("restarts", ""), new["child_key"]), job_id)
            if known != job_id:
                self._fail("one-child-per-key", f"{job_id[-6:]} was made beside {known[-6:]}")
        for kind, _, name in (group.partition(":") for group in awaited_groups(new)):
            if kind == "job" and name not in self._server.memory.records:
                self._fail("awaited-job-is-known", f"{job_id[-6:]} was made after {name[-6:]}, which does not exist")
        if "scheduled" in new:
            if new["scheduled"] in self._ticks:
                self._fail("one-job-per-tick", f"{job_id[-6:]} is a second job of its tick")
            self._ticks.add(new["scheduled"])

    def _open_members(self, group: str) -> Iterator[str]:
        """Yield the ids of the members of a group that have not ended or whose code is still stopping."""
        memory, (kind, _, name) = self._server.memory, group.partition(":")
        if kind == "job":
            if memory.records.get(name, {}).get("status") in ACTIVE or name in memory.stops:
                yield name
            return
        for job_id, record in memory.records.items():
            if group in member_groups(record) and record["status"] in ACTIVE:
                yield job_id
        yield from (job_id for job_id, stop in memory.stops.items() if group in stop.groups.split(US))

    def waits(self, record: Mapping[str, str]) -> bool:
        """Return whether a job is held and a member of a group that it waits for is open or stopping."""
        return "held" in record and any(any(self._open_members(group)) for group in awaited_groups(record))

    def overdue(self) -> set[tuple[str, str]]:
        """Return the held jobs whose groups are closed, and the ticks that have come and have no job yet."""
        memory = self._server.memory
        found = {
            ("held", job_id)
            for job_id, record in memory.records.items()
            if record.get("held") and record["held"] != PAUSED and not self.waits(record)
        }
        for key, (text, _, _) in memory.values.items():
            if key.startswith(SCHEDULES):
                due = Schedule.from_text(text).next_at
                if due is not None and to_micros(due, "tick") <= memory.now:
                    found.add(("tick", due.isoformat()))
        return found

    def on_step(self, run: Run, key: str, value: object) -> None:
        """Called with each value that `run.step` returns."""
        known = self._values.setdefault((run.job_id, key), value)
        if known != value:
            self._fail("kept-value-stays", f"{key} was {known} and is {value}")
