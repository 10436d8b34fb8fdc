"""The rules: what must hold at each accepted write, at each sweep, while code runs, and at rest.

The server's records are looked at directly, in the instant of each change, so no wrong state passes unseen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from milepost.core.placement import starts_at
from milepost.core.transitions.table import ACTIVE, TERMINAL
from milepost.core.values import JobStatus
from milepost.run.run import Run
from milepost.settings import Settings
from tests.simulation.dependency_rules import DEPENDENCY_RULES, DependencyRules
from tests.simulation.limit_rules import over_limit
from tests.simulation.network import Server
from tests.simulation.world import Process, World

RULES = {
    "acknowledged-is-kept": "P1, I7: a job whose submit was answered exists until it is deleted",
    "applied-once": "P3: one operation id changes a job once",
    "begins-within-lease": "P3: code does not begin after its lease has ended by the clock of its worker",
    "budgets-hold": "I15: attempts and crashes stay within their limits",
    "cancel-reaches-code": "P4: running code of a healthy process is notified of a cancel",
    "checkpoint-is-passed-on": "P7: the next attempt gets the last acknowledged checkpoint, or a later one",
    "checkpoint-grows": "P7: a checkpoint never goes back",
    "completed-code-returned": "I2: a job completes only if code of this run has returned",
    "counts-match": "P6, I12: the counts equal the records",
    "deleted-stays-deleted": "I8: a deleted job does not come back",
    "draining-blocks-start": "P4: no run starts beside a draining lease of its job",
    "every-job-ends": "P2, I22: at rest every job has ended",
    "fence-grows": "I5: each lease of a job has a greater fence than the one before",
    "healthy-run-is-kept": "I6: a run of a healthy process is not taken as lost",
    "lease-iff-running": "I5: a job has a lease if and only if it is running",
    "limit-of-key-holds": "I33: leases of a limit key, and of a partition of it, are at most the limit in force at their start",
    "limit-holds": "I17: no more runs of a type, draining ones included, than its limit",
    "lists-match": "P6, I13: a walk through the list returns each job once",
    "no-lease-is-left": "I22: at rest no draining lease is overdue",
    "not-before-holds": "I16: no run starts before its time",
    "old-run-is-notified": "P3: a stale run of a healthy process is stopped when its successor begins",
    "one-active-per-key": "I17: one unique key has one active job",
    "poison-is-charged": "P2: a job that kills its worker again and again ends",
    "progress-grows": "P5, I9: progress never goes back within an attempt",
    "progress-arrives": "P5: progress that a healthy run reports is in the record a few heartbeats later",
    "recovered-in-time": "P2, I6, I27, I32: leases that are over, held jobs and due ticks are handled while sweeps take place",
    "sweeps-take-place": "P2: at rest sweeps take place",
    "stale-run-writes-nothing": "P3, I4: each accepted write of a run has the token of the current lease",
    "terminal-is-final": "I1, I3: a job that has ended changes its status only by a retry",
    "versions-count": "I11: each event has the next version",
    **DEPENDENCY_RULES,
}
RUN_WRITES = frozenset(
    ("progress", "stage", "stalled", "checkpoint", "keep_step", "suspend", "complete", "fail", "release", "self_cancel")
)
REOPENING = frozenset(("retry", "retry from start", "retry_child", "resume"))
NOTIFIED_WITHIN = 0.8
"""Seconds within which an old run is notified after its successor has begun."""
CANCEL_NOTIFIED_WITHIN = 1.6
REPORTED_WITHIN = 2.4
"""Seconds: six steps of a thread, and several heartbeats."""
REPLY_WITHIN = 8_000_000
"""Microseconds after which a request that was disturbed has its reply, or is given up."""
POISON_BEGINS = 12
"""How often a job that kills its worker may begin: 3 charged crashes, uncharged ones, and explicit retries."""
SCHEDULED_WITHIN = 60_000_000
"""Microseconds: no job is scheduled for later than this by a clock that is right."""


class Rules:
    """Checks one run. The first violation ends it. `limits` are the most concurrent runs of types."""

    def __init__(self, world: World, server: Server, settings: Settings, limits: Mapping[str, int]) -> None:
        self.world, self.server, self.settings = world, server, settings
        self.violation: tuple[str, str] | None = None
        """The rule and what happened."""
        self.writes = 0
        self.acknowledged: dict[str, str] = {}
        """The jobs whose submit was answered, with their types."""
        self.deleted: set[str] = set()
        """The jobs whose delete was requested."""
        self._limits = limits
        self._applied: dict[tuple[str, str], int] = {}
        self._removed: set[str] = set()
        self._fences: dict[str, int] = {}
        self._live: dict[str, tuple[Process, Run, int]] = {}
        """Running code by token: its process, its run, and since when."""
        self._returned: set[str] = set()
        self._started: dict[str, tuple[Process, int]] = {}
        """The process that each lease was given to, and when."""
        self._begun: set[str] = set()
        """The leases whose code has begun."""
        self._begins: dict[str, int] = {}
        self._checkpoints: dict[str, int] = {}
        self._overdue: dict[tuple[str, str], int] = {}
        self._swept_at = 0
        self.dependencies = DependencyRules(server, self.fail)
        server.on_write = self.on_write
        server.on_sweep = self.on_sweep

    def fail(self, rule: str, text: str) -> None:
        """Report a violation."""
        assert rule in RULES, rule
        self.world.note(f"VIOLATION {rule}: {text}")
        if self.violation is None:
            self.violation = (rule, text)
            self.world.is_halted = True

    # --- each write ---

    def on_write(self, job_id: str, change: Any, before: Any, after: Any, result: Any) -> None:
        if not result.accepted or result.repeated:
            return
        self.writes += 1
        name = change.transition.name
        old, new = before or {}, after or {}
        was, status = old.get("status", ""), new.get("status", "")
        self.world.note(
            f"   {self.server.requester}: {name} {job_id[-6:]} {was or '-'} -> {status or '-'}, version "
            f"{new.get('version')}, attempt {new.get('attempt', 0)}, crashes {new.get('crashes', 0)}"
        )
        write = (job_id, change.operation_id)
        times = self._applied[write] = self._applied.get(write, 0) + 1
        # A worker may use the start ids of a claim again; each start has a new fence. A late duplicate of the note that a
        # task queue cannot be reached postpones the next try once more, and changes nothing that is shown.
        only_postpones = name == "undispatchable" and new.get("version") == old.get("version")
        if times > 1 and name != "start" and not only_postpones:
            self.fail("applied-once", f"{name} was applied {times} times with one operation id")
        if was in TERMINAL and status not in ("", was) and name not in REOPENING:
            self.fail("terminal-is-final", f"{was} -> {status} by {name}")
        if name in RUN_WRITES and old.get("token") != change.values[0]:
            self.fail("stale-run-writes-nothing", f"{name} was accepted without the token of the current lease")
        if before is None and after is not None and job_id in self._removed:
            self.fail("deleted-stays-deleted", f"{name} brought a deleted job back")
        if after is None:
            self._removed.add(job_id)
            return
        if before is not None:
            self._check_progress(change, result, old, new)
        self._check_state(name, job_id, old, new)
        self.dependencies.on_write(job_id, change, old, new)
        if name == "suspend" and old["token"] in self._live:
            self.fail("suspension-follows-return", "a run was suspended whose code has not returned")
        if was != "running" and status == "running":
            self._started[new["token"]] = (self.server.requesting, self.world.now)
            self._check_start(name, job_id, old, new)
        if name == "complete" and old["token"] not in self._returned and new["type"] in self._watched_types:
            self.fail("completed-code-returned", "a job completed whose code has not returned")
        if name == "lease_expired":
            self._check_lost(old, status)
        if name == "cancel" and "token" in old:
            if old["token"] in self._live:
                cause = "the cancel of its job"
                self._expect_stop("cancel-reaches-code", old["token"], CANCEL_NOTIFIED_WITHIN, cause, by_network=True)
            elif old["token"] in self._started:
                self._expect_confirmation(job_id, old["token"])

    _watched_types: frozenset[str] = frozenset()

    def watch_types(self, types: frozenset[str]) -> None:
        """Expect that code of these types reports its begin and end."""
        self._watched_types = types

    def _check_progress(self, change: Any, result: Any, old: Any, new: Any) -> None:
        if change.transition.branches[result.branch].event and int(new["version"]) != int(old["version"]) + 1:
            self.fail("versions-count", f"version {old['version']} was followed by {new['version']}")
        is_same_run = "token" in old and old["token"] == new.get("token")
        if is_same_run and float(new.get("progress", 0)) < float(old.get("progress", 0)):
            self.fail("progress-grows", f"{old['progress']} was followed by {new.get('progress')}")
        if "checkpoint" in old and "checkpoint" in new and int(new["checkpoint"]) < int(old["checkpoint"]):
            self.fail("checkpoint-grows", f"{old['checkpoint']} was followed by {new['checkpoint']}")

    def _check_state(self, name: str, job_id: str, old: Any, new: Any) -> None:
        status = new["status"]
        if new.get("run_by") != "manual" and (status == "running") != ("token" in new and "lease" in new):
            self.fail("lease-iff-running", f"{status}, lease {new.get('lease')}, after {name}")
        if int(new.get("crashes", 0)) > int(new.get("max_crashes", 3)) and status in ACTIVE:
            self.fail("budgets-hold", f"crash {new['crashes']} of {new.get('max_crashes', 3)}")
        key = new.get("unique_key")
        if key and status in ACTIVE and old.get("status") not in ACTIVE:
            records = self.server.memory.records.values()
            holders = sum(record.get("unique_key") == key and record["status"] in ACTIVE for record in records)
            if holders > 1:
                self.fail("one-active-per-key", f"{holders} active jobs have the key {key} after {name}")

    def _check_start(self, name: str, job_id: str, old: Any, new: Any) -> None:
        memory = self.server.memory
        fence = int(new["token"].split(":")[0])
        if fence <= self._fences.get(job_id, 0):
            self.fail("fence-grows", f"fence {fence} after {self._fences[job_id]}")
        self._fences[job_id] = fence
        if int(new.get("attempt", 0)) > int(new.get("max_attempts", 1)) and new["run_by"] == "worker":
            self.fail("budgets-hold", f"attempt {new['attempt']} of {new.get('max_attempts')}")
        if job_id in memory.stops:
            self.fail("draining-blocks-start", f"{name} beside a draining lease")
        start = starts_at(old) if old else 0
        if start is None:
            self.fail("held-until-group-closes", f"{name} of a held job")
        elif start > memory.now:
            self.fail("not-before-holds", f"{(start - memory.now) / 1e6:.1f} s too early")
        if over := over_limit(memory, new.get("slot", "")):
            self.fail("limit-of-key-holds", over)
        limit = self._limits.get(new["type"])
        if limit is not None:
            records = memory.records.values()
            taken = sum(record["type"] == new["type"] and record["status"] == "running" for record in records)
            taken += sum(stop.slot == new["type"] for stop in memory.stops.values())
            if taken > limit:
                self.fail("limit-holds", f"{taken} runs of {new['type']}, limit {limit}")

    def _check_lost(self, old: Any, status: str) -> None:
        if self._clock_stepped_twice():
            return  # no run renews its lease between such steps
        token = old.get("token")
        if token in self._started and token not in self._begun:
            process, since = self._started[token]
            # A worker repeats a claim until it has the reply; what tracks a block has given up a request that comes late.
            patience = REPLY_WITHIN if old.get("run_by") == "track" else 0
            if self._is_well(process) and process.fault_at < since - patience and self.server.down_until < since:
                self.fail("healthy-run-is-kept", f"a claimed job was not begun by a healthy worker, and is {status}")
        if token not in self._live:
            return
        process, run, since = self._live[token]
        quiet = self.world.now - max(process.disturbed_at, since)
        if self._is_well(process) and not run.cancelled and quiet > (self.settings.lease + 1) * 1e6:
            self.fail("healthy-run-is-kept", f"a healthy run was taken as lost, and the job is {status}")

    def _clock_stepped_twice(self) -> bool:
        """Return whether the server's clock stepped twice within a third of a lease, at most a lease ago."""
        lease = self.settings.lease * 1e6
        recent = [at for at in self.server.clock_steps if self.world.now - at < lease]
        return any(then - at < lease / 3 for at, then in pairwise(recent))

    def _is_well(self, process: Process) -> bool:
        return process.is_alive and not process.is_paused and not process.is_cut

    def _expect_stop(self, rule: str, token: str, seconds: float, cause: str, *, by_network: bool) -> None:
        """Expect that running code is notified of a stop in time, unless its process is paused meanwhile.

        `by_network`: the server has to tell, so nothing is expected of a process with a bad network.
        """
        process, run, _ = self._live[token]
        paused_until, disturbed_at = process.paused_until, process.disturbed_at

        def is_able() -> bool:
            return process.is_alive and not process.is_paused and not (by_network and process.is_cut)

        def check() -> None:
            is_undisturbed = process.paused_until == paused_until and is_able()
            if by_network:
                is_undisturbed &= process.disturbed_at == disturbed_at and self.server_was_up(seconds)
            if token in self._live and is_undisturbed and not run.cancelled:
                self.fail(rule, f"a run was not notified of its stop {seconds:g} s after {cause}")

        if is_able() and not (by_network and disturbed_at > self.world.now):
            self.world.post(seconds * 1e6, check)

    def _expect_confirmation(self, job_id: str, token: str) -> None:
        """Expect that a cancelled run whose code has not begun gives up its lease, unless there are faults meanwhile."""
        process, since = self._started[token]
        seconds = CANCEL_NOTIFIED_WITHIN + self.settings.grace

        def check() -> None:
            stop = self.server.memory.stops.get(job_id)
            is_undisturbed = (
                self._is_well(process) and process.fault_at < since - REPLY_WITHIN and self.server_was_up(20)
            )
            if stop is not None and stop.token == token and token not in self._begun and is_undisturbed:
                self.fail(
                    "cancel-reaches-code", f"a cancelled job that had not begun holds its lease {seconds:g} s later"
                )

        self.world.post(seconds * 1e6, check)

    def server_was_up(self, seconds: float) -> bool:
        """Return whether the server was available in the last seconds."""
        return self.world.now - self.server.down_until > seconds * 1e6

    # --- each sweep ---

    def on_sweep(self, found: Any) -> None:
        """Look for what is over by the server's clock and is offered to no sweeper for two leases and some sweeps."""
        memory, now = self.server.memory, self.world.now
        self._swept_at = now
        leases = memory.indexes.get(("lease",), ())
        due = {("lease", str(order[-1])) for order in leases if int(order[0]) <= memory.now}
        due |= {("stopping", job_id) for job_id, stop in memory.stops.items() if stop.expires <= memory.now}
        due |= self.dependencies.overdue()
        offered = due if found.held else {(item.kind, item.job_id) for item in found.due}
        self._overdue = {key: now if key in offered else self._overdue.get(key, now) for key in due}
        longest = 2 * self.settings.lease + 4 * self.settings.sweep_interval + 3
        for (kind, _), since in self._overdue.items():
            if now - since > longest * 1e6:
                self.fail("recovered-in-time", f"a {kind} job or lease was not swept for {(now - since) / 1e6:.0f} s")

    # --- running code ---

    def on_begin(self, run: Run, process: Process, sent_at: float | None = None) -> None:
        """Called by the code of a run when it begins; `sent_at` is when its lease was requested, by its own clock."""
        if self.world.is_over:
            return
        job_type = run.job_type
        self.world.note(f"   {process.name}: code of {job_type} {run.job_id[-6:]} begins")
        begins = self._begins[run.job_id] = self._begins.get(run.job_id, 0) + 1
        record = self.server.memory.records.get(run.job_id, {})
        if job_type == "poison" and begins > POISON_BEGINS:
            self.fail("poison-is-charged", f"begun {begins} times, charged crashes: {record.get('crashes', 0)}")
        if sent_at is not None and self.world.now / 1e6 + 1000.0 - sent_at > self.settings.lease:
            self.fail("begins-within-lease", "code begins although its lease has ended")
        kept = self._checkpoints.get(run.job_id, -1)
        got = run.last_checkpoint if run.last_checkpoint is not None else -1
        if record.get("token") == run.token and got < kept:
            self.fail("checkpoint-is-passed-on", f"acknowledged: {kept}; the next attempt got {got}")
        for token, (_, old, _) in tuple(self._live.items()):
            if old.job_id == run.job_id and not old.cancelled and old.fence < run.fence:
                # A run knows when its lease ends, unless the server's clock has stepped: then the server has to tell.
                steps = self.server.clock_steps
                stepped = bool(steps) and self.world.now - steps[-1] < self.settings.lease * 1e6
                seconds = CANCEL_NOTIFIED_WITHIN if stepped else NOTIFIED_WITHIN
                self._expect_stop("old-run-is-notified", token, seconds, "its successor had begun", by_network=stepped)
        self._begun.add(run.token)
        self._live[run.token] = (process, run, self.world.now)

    def on_end(self, run: Run, process: Process, *, returned: bool) -> None:
        """Called by the code of a run when it ends."""
        if self.world.is_over or not process.is_alive:
            return
        for token in [token for token, (_, live, _) in self._live.items() if live is run]:
            del self._live[token]  # a tracked block may have taken another lease since
        if returned:
            self._returned.add(run.token)

    def on_progress(self, run: Run, process: Process, reported: float) -> None:
        """Called with the progress that a run reported REPORTED_WITHIN seconds ago, or before that."""
        record, since = self.server.memory.records.get(run.job_id, {}), self.world.now - REPORTED_WITHIN * 1e6
        is_undisturbed = max(process.fault_at, process.disturbed_at) < since and self.server.down_until < since
        is_leased = record.get("token") == run.token and not run.cancelled
        if is_leased and is_undisturbed and self._is_well(process) and float(record["progress"]) < reported:
            self.fail(
                "progress-arrives",
                f"{reported} was reported {REPORTED_WITHIN} s ago, and {record['progress']} is stored",
            )

    def on_checkpoint(self, run: Run, value: int) -> None:
        """Called when the store has acknowledged a checkpoint."""
        self._checkpoints[run.job_id] = max(value, self._checkpoints.get(run.job_id, -1))

    def on_crash(self, process: Process) -> None:
        """Called when a process is killed."""
        self._live = {token: live for token, live in self._live.items() if live[0] is not process}

    # --- at rest ---

    def unfinished(self) -> Iterator[Mapping[str, str]]:
        """Yield the records of the jobs that are to end by themselves and have not.

        A job that was scheduled while the server's clock was ahead waits until then; it is left out, and so is a job that
        waits for another one, which is looked at by itself.
        """
        now = self.server.memory.tick()
        for record in self.server.memory.records.values():
            if (
                record["status"] in ACTIVE
                and record["run_by"] != "external"
                and (starts_at(record) or 0) <= now + SCHEDULED_WITHIN
                and not self.dependencies.waits(record)
            ):
                yield record

    def at_rest(self) -> None:
        """Check the end of a run: the faults are over, and time has passed since."""
        memory, records = self.server.memory, self.server.memory.records
        for job_id, job_type in self.acknowledged.items():
            if job_id not in records and job_id not in self.deleted:
                self.fail("acknowledged-is-kept", f"a {job_type} job is gone")
        # A lease that was taken while the clock was ahead ends at that time, if no sweep saw the clock step back.
        ahead = memory.tick() + SCHEDULED_WITHIN
        waiting = {record["type"] for record in records.values() if int(record.get("lease", 0)) > ahead}
        waiting |= {stop.slot for stop in memory.stops.values() if stop.expires > ahead}
        left = [
            f"{r['type']} {r['status']} attempt {r.get('attempt', 0)} suspect {r.get('suspect', 0)}"
            for r in self.unfinished()
            if r["type"] not in waiting
        ]
        if left:
            self.fail("every-job-ends", f"{len(left)} jobs have not ended: {', '.join(left[:3])}")
        late = memory.tick() - 2e6 * self.settings.lease
        if overdue := [stop for stop in memory.stops.values() if stop.expires < late]:
            self.fail("no-lease-is-left", f"{len(overdue)} draining leases are overdue")
        if self.world.now - self._swept_at > (3 * self.settings.sweep_interval + 2) * 1e6:
            self.fail("sweeps-take-place", f"no sweep for {(self.world.now - self._swept_at) / 1e6:.0f} s")

    def at_end_of_list(self, listed: list[str], counted: Mapping[JobStatus, int]) -> None:
        """Check the ids of a walk through the list, and the counts, as a caller sees them at rest."""
        records = self.server.memory.records
        if sorted(listed) != sorted(records):
            self.fail("lists-match", f"{len(listed)} jobs are listed, {len(records)} exist")
        for status in JobStatus:
            exist = sum(record["status"] == status.value for record in records.values())
            if counted.get(status, 0) != exist:
                self.fail("counts-match", f"{counted.get(status, 0)} {status.value} jobs are counted, {exist} exist")
