"""The rules of what is left: what sweeps have to find, and what must hold when the faults are over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from milepost.core.placement import starts_at
from milepost.core.transitions.table import ACTIVE
from milepost.core.values import JobStatus
from milepost.run.sweeper import UNDISPATCHED_AFTER
from tests.simulation.limit_rules import over_limit
from tests.simulation.task_queue import NAME

if TYPE_CHECKING:
    from tests.simulation.rules import Rules

REST_RULES = {
    "absence-is-reported": "a job says after a while that no process can dispatch it",
    "acknowledged-is-kept": "P1, I7: a job whose submit was answered exists until it is deleted",
    "counts-match": "P6, I12: the counts equal the records",
    "every-job-ends": "P2, I22: at rest every job has ended",
    "jobs-start-at-once": "P2: at rest an idle worker starts a new job at once",
    "lists-match": "P6, I13: a walk through the list returns each job once",
    "no-lease-is-left": "I22: at rest no draining lease is overdue",
    "recovered-in-time": "P2, I6, I27, I32: leases that are over, held jobs and due ticks are handled while sweeps take place",
    "sweeps-take-place": "P2: at rest sweeps take place",
}
SCHEDULED_WITHIN = 60_000_000
"""Microseconds: no job is scheduled for later than this by a clock that is right."""


class RestRules:
    """Checks the sweeps and the end of one run of the simulation."""

    def __init__(self, rules: Rules) -> None:
        self._rules, self._fail, self._world, self._server = rules, rules.fail, rules.world, rules.server
        self._overdue: dict[tuple[str, str], int] = {}
        self._swept_at = 0

    # --- at rest ---

    def unfinished(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Yield the ids and records of the jobs that are to end by themselves and have not.

        A job that was scheduled, or is to be dispatched again, by a clock that was ahead waits until then; it is left out,
        and so is a job that waits for another one, which is looked at by itself.
        """
        now = self._server.memory.tick()
        for job_id, record in self._server.memory.records.items():
            if (
                record["status"] in ACTIVE
                and (record["run_by"] != "external" or record["task_queue"] == NAME)
                and max(starts_at(record) or 0, int(record.get("stale", 0))) <= now + SCHEDULED_WITHIN
                and not self._rules.dependencies.waits(record)
            ):
                yield job_id, record

    def _waits_for_clock(self, job_id: str, record: Mapping[str, str]) -> bool:
        """Return whether a lease that was taken while the clock was ahead keeps a job from ending.

        It ends at that time, if no sweep saw the clock step back. Until then a job waits whose own run is dead, and one that
        may not start beside it: it has the same id or unique key, or such leases fill its limit.
        """
        memory = self._server.memory
        ahead = memory.tick() + SCHEDULED_WITHIN
        if record["status"] == "running":
            return int(record.get("lease", 0)) > ahead
        stops = {stopping: stop for stopping, stop in memory.stops.items() if stop.expires > ahead}
        slot, key = record.get("slot", ""), record.get("unique_key")
        if job_id in stops or (key is not None and any(stop.key == key for stop in stops.values())):
            return True
        held = [slot, *(stop.slot for stop in stops.values())]
        held += [other.get("slot", "") for other in memory.records.values() if int(other.get("lease", 0)) > ahead]
        return held.count(slot) > self._rules.limits.get(slot, len(held)) or over_limit(memory, slot, held) is not None

    def at_rest(self) -> None:
        """Check the end of a run: the faults are over, and time has passed since."""
        memory, records = self._server.memory, self._server.memory.records
        for job_id, job_type in self._rules.acknowledged.items():
            if job_id not in records and job_id not in self._rules.deleted | self._rules.requests.purged:
                self._fail("acknowledged-is-kept", f"a {job_type} job is gone")
        left = [
            f"{r['type']} {r['status']} attempt {r.get('attempt', 0)} suspect {r.get('suspect', 0)}"
            for job_id, r in self.unfinished()
            if not self._waits_for_clock(job_id, r)
        ]
        if left:
            self._fail("every-job-ends", f"{len(left)} jobs have not ended: {', '.join(left[:3])}")
        late = memory.tick() - 2e6 * self._rules.settings.lease
        if overdue := [stop for stop in memory.stops.values() if stop.expires < late]:
            self._fail("no-lease-is-left", f"{len(overdue)} draining leases are overdue")
        some_sweeps = (3 * self._rules.settings.sweep_interval + 2) * 1e6
        if self._world.now - self._swept_at > some_sweeps:
            self._fail("sweeps-take-place", f"no sweep for {(self._world.now - self._swept_at) / 1e6:.0f} s")
        long_ago = memory.tick() - UNDISPATCHED_AFTER - some_sweeps
        for record in records.values():
            is_elsewhere = (
                record["run_by"] == "external" and record["task_queue"] != NAME and record["status"] in ACTIVE
            )
            if is_elsewhere and "stalled" not in record and int(record.get("stale", long_ago)) < long_ago:
                self._fail("absence-is-reported", f"a job waits for {record['task_queue']}, and does not say so")
        self._rules.http.at_rest()
        self._rules.logs.at_rest()
        self._rules.requests.at_rest()
        self._rules.runs.at_rest()

    def at_end_of_probe(self, status: str) -> None:
        """Check the job that was submitted at rest, 1.5 s later."""
        if status != "completed":
            self._fail("jobs-start-at-once", f"a new job is {status} after 1.5 s")

    def statuses(self) -> dict[str, str]:
        """Return the status of each job."""
        return {job_id: record["status"] for job_id, record in self._server.memory.records.items()}

    def at_end_of_list(self, listed: list[str], counted: Mapping[JobStatus, int]) -> None:
        """Check the ids of a walk through the list, and the counts, as a caller sees them at rest."""
        statuses = self.statuses()
        if sorted(listed) != sorted(statuses):
            self._fail("lists-match", f"{len(listed)} jobs are listed, {len(statuses)} exist")
        for status in JobStatus:
            exist = sum(each == status.value for each in statuses.values())
            if counted.get(status, 0) != exist:
                self._fail("counts-match", f"{counted.get(status, 0)} {status.value} jobs are counted, {exist} exist")

    # --- each sweep ---

    def on_sweep(self, found: Any) -> None:
        """Look for what is over by the server's clock and is offered to no sweeper for two leases and some sweeps."""
        memory, now = self._server.memory, self._world.now
        self._swept_at = now
        leases = memory.indexes.get(("lease",), ())
        due = {("lease", str(order[-1])) for order in leases if int(order[0]) <= memory.now}
        due |= {("stopping", job_id) for job_id, stop in memory.stops.items() if stop.expires <= memory.now}
        due |= self._rules.dependencies.overdue()
        offered = due if found.held else {(item.kind, item.job_id) for item in found.due}
        self._overdue = {key: now if key in offered else self._overdue.get(key, now) for key in due}
        longest = 2 * self._rules.settings.lease + 4 * self._rules.settings.sweep_interval + 3
        for (kind, _), since in self._overdue.items():
            if now - since > longest * 1e6:
                self._fail("recovered-in-time", f"a {kind} job or lease was not swept for {(now - since) / 1e6:.0f} s")
