"""The rules: what must hold at each accepted write, at each sweep, while code runs, and at rest.

The server's records are looked at directly, in the instant of each change, so no wrong state passes unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from milepost.core.placement import starts_at
from milepost.core.transitions.table import ACTIVE, TERMINAL
from milepost.run.run import Run
from milepost.run.sweeper import MAX_UNCHARGED_CRASHES
from milepost.settings import Settings
from tests.simulation.change_rules import CHANGE_RULES, ChangeRules
from tests.simulation.child_rules import CHILD_RULES, ChildRules
from tests.simulation.dependency_rules import DEPENDENCY_RULES, DependencyRules
from tests.simulation.http import HTTP_RULES, HttpRules
from tests.simulation.limit_rules import over_limit
from tests.simulation.log_rules import LOG_RULES, LogRules
from tests.simulation.network import Server
from tests.simulation.queue_rules import QUEUE_RULES, QueueRules
from tests.simulation.request_rules import REQUEST_RULES, RequestRules
from tests.simulation.rest_rules import REST_RULES, RestRules
from tests.simulation.run_rules import REPLY_WITHIN, RUN_RULES, RunRules
from tests.simulation.world import Process, World

RULES = {
    "applied-once": "P3: one operation id changes a job once",
    "begins-within-lease": "P3: code does not begin after its lease has ended by the clock of its worker",
    "budgets-hold": "I15: attempts and crashes stay within their limits",
    "cancel-reaches-code": "P4: running code of a healthy process is notified of a cancel",
    "checkpoint-is-passed-on": "P7: the next attempt gets the last acknowledged checkpoint, or a later one",
    "checkpoint-grows": "P7: a checkpoint never goes back",
    "completed-code-returned": "I2: a job completes only if code of this run has returned",
    "deleted-stays-deleted": "I8: a deleted job does not come back",
    "draining-blocks-start": "P4: no run starts beside a draining lease of its job, or of one with its unique key",
    "fence-grows": "I5: each lease of a job has a greater fence than the one before",
    "healthy-run-is-kept": "I6: a run of a healthy process is not taken as lost",
    "lease-iff-running": "I5: a job has a lease if and only if it is running",
    "limit-of-key-holds": "I33: leases of a limit key, and of a partition of it, are at most the limit in force at their start",
    "limit-holds": "I17: no more runs of a type, draining ones included, than its limit",
    "not-before-holds": "I16: no run starts before its time",
    "old-run-is-notified": "P3: a stale run of a healthy process is stopped when its successor begins",
    "one-active-per-key": "I17: one unique key has one active job",
    "poison-is-charged": "P2: a job that kills its worker again and again ends",
    "progress-grows": "P5, I9: progress never goes back within an attempt",
    "progress-arrives": "P5: progress that a healthy run reports is in the record a few heartbeats later",
    "stale-run-writes-nothing": "P3, I4: each accepted write of a run has the token of the current lease",
    "terminal-is-final": "I1, I3: a job that has ended changes its status only by a retry",
    "versions-count": "I11: each event has the next version",
    **DEPENDENCY_RULES,
    **RUN_RULES,
    **REQUEST_RULES,
    **CHANGE_RULES,
    **REST_RULES,
    **QUEUE_RULES,
    **HTTP_RULES,
    **LOG_RULES,
    **CHILD_RULES,
}
RUN_WRITES = frozenset(
    ("progress", "stage", "stalled", "checkpoint", "keep_step", "suspend", "complete", "fail", "release", "self_cancel")
)
REOPENING = frozenset(("retry", "retry from start", "retry_child", "resume"))
POSTPONING = frozenset(("dispatch", "dispatched"))
NOTIFIED_WITHIN = 0.8
"""Seconds within which an old run is notified after its successor has begun."""
CANCEL_NOTIFIED_WITHIN = 1.6
LEARNS_WITHIN = 0.3
"""Seconds within which a child process learns that its lease has ended."""
REPORTED_WITHIN = 2.4
"""Seconds: six steps of a thread, and several heartbeats."""


class Rules:
    """Checks one run. The first violation ends it.

    `limits` are the most concurrent runs of types, `concurrency` those of a worker.
    """

    def __init__(
        self, world: World, server: Server, settings: Settings, limits: Mapping[str, int], concurrency: int
    ) -> None:
        self.world, self.server, self.settings = world, server, settings
        self.violation: tuple[str, str] | None = None
        """The rule and what happened."""
        self.writes = 0
        self.acknowledged: dict[str, str] = {}
        """The jobs whose submit was answered, with their types."""
        self.deleted: set[str] = set()
        """The jobs whose delete was requested."""
        self.reports_in_turn = False
        """Whether a request of the heartbeat has the report of one run only, so the others wait."""
        self.limits = limits
        self._applied: dict[tuple[str, str], int] = {}
        self.removed: set[str] = set()  # the jobs that were deleted
        self._fences: dict[str, int] = {}
        self._live: dict[str, tuple[Process, Run, int]] = {}
        """Running code by token: its process, its run, and since when."""
        self._returned: set[str] = set()
        self._started: dict[str, tuple[Process, int]] = {}
        """The process that each lease was given to, and when."""
        self.begun: set[str] = set()
        """The leases whose code has begun."""
        self._begins: dict[str, int] = {}
        self._checkpoints: dict[str, int] = {}
        self.dependencies = DependencyRules(server, self.fail)
        self.runs = RunRules(self, concurrency)
        self.requests = RequestRules(self)
        self.changes, self.rest = ChangeRules(self), RestRules(self)
        self.queue = QueueRules(self)
        self.http = HttpRules(self)
        self.logs = LogRules(self)
        self.children = ChildRules(self)
        world.on_warning, requests = self.logs.on_warning, self.requests
        server.on_call, server.on_request, server.on_reply = requests.on_call, requests.on_request, requests.on_reply
        server.on_no_reply = requests.on_no_reply
        server.on_purge, server.on_sweep = requests.on_purge, self.rest.on_sweep
        server.on_write = self.on_write

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
        if before is None and after is not None and job_id in self.removed:
            self.fail("deleted-stays-deleted", f"{name} brought a deleted job back")
        if before is None and after is not None:
            self.http.on_create(job_id, after)
        if name == "retry":
            self._begins.pop(job_id, None)
        write = (job_id, change.operation_id)
        times = self._applied[write] = self._applied.get(write, 0) + 1
        # A worker may use the start ids of a claim again, and a delivery is repeated; each start has a new fence. A late
        # duplicate of the note that a task queue has a message postpones the next try once more, and changes nothing that is
        # shown.
        only_postpones = name in POSTPONING and new.get("version") == old.get("version")
        # A job may come back that was removed because the clock stepped ahead by more than the retention time.
        is_purged = job_id in self.requests.purged
        if times > 1 and name not in ("start", "deliver") and not only_postpones and not is_purged:
            self.fail("applied-once", f"{name} was applied {times} times with one operation id")
        if was in TERMINAL and status not in ("", was) and name not in REOPENING:
            self.fail("terminal-is-final", f"{was} -> {status} by {name}")
        if name in RUN_WRITES and old.get("token") != change.values[0]:
            self.fail("stale-run-writes-nothing", f"{name} was accepted without the token of the current lease")
        self.runs.on_write(job_id, change, old, new)
        self.changes.on_write(job_id, change, old, new)
        self.children.on_write(change, old)
        if after is None:
            if before is not None:  # a receipt may also come for a job that a purge has removed
                self.removed.add(job_id)
            return
        self.requests.on_write(job_id, new)
        if before is not None:
            self._check_progress(change, result, old, new)
        self._check_state(name, job_id, old, new)
        self.dependencies.on_write(job_id, change, old, new)
        self.queue.on_write(job_id, change, old, new)
        if name == "suspend" and old["token"] in self._live:
            self.fail("suspension-follows-return", "a run was suspended whose code has not returned")
        if was != "running" and status == "running":
            self._started[new["token"]] = (self.server.requesting, self.world.now)
            self._check_start(name, job_id, old, new)
            self.runs.on_start(new["token"], job_id, new, self.server.requesting)
        if name == "complete" and old["token"] not in self._returned and new["type"] in self._watched_types:
            self.fail("completed-code-returned", "a job completed whose code has not returned")
        if name == "lease_expired" or (name == "resume" and was == "running"):
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
        # A tracked block is resumed by each start with its key, however often its process was lost.
        is_limited = status in ACTIVE and new["run_by"] != "track"
        if is_limited and int(new.get("crashes", 0)) > int(new.get("max_crashes", 3)):
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
        if int(new.get("attempt", 0)) > int(new.get("max_attempts", 1)) and new["run_by"] != "track":
            self.fail("budgets-hold", f"attempt {new['attempt']} of {new.get('max_attempts')}")
        if self.is_draining(job_id, new):
            self.fail("draining-blocks-start", f"{name} beside a draining lease")
        start = starts_at(old) if old else 0
        if start is None:
            self.fail("held-until-group-closes", f"{name} of a held job")
        elif start > memory.now:
            self.fail("not-before-holds", f"{(start - memory.now) / 1e6:.1f} s too early")
        if over := over_limit(memory, new.get("slot", "")):
            self.fail("limit-of-key-holds", over)
        limit = self.limits.get(new["type"])
        if limit is not None:
            records = memory.records.values()
            taken = sum(record["type"] == new["type"] and record["status"] == "running" for record in records)
            taken += sum(stop.slot == new["type"] for stop in memory.stops.values())
            if taken > limit:
                self.fail("limit-holds", f"{taken} runs of {new['type']}, limit {limit}")

    def _check_lost(self, old: Any, status: str) -> None:
        if self.server.clock_stepped_unseen(self.settings):
            return  # no run renews its lease between such steps
        token = old.get("token")
        if token in self._started and token not in self.begun:
            process, since = self._started[token]
            # A worker repeats a claim until it has the reply; what tracks a block or has a message has given up a request
            # that comes late.
            patience = REPLY_WITHIN if old.get("run_by") != "worker" else 0
            is_short = self.world.now - since < self.settings.lease * 1e6 and since < max(
                self.server.clock_steps, default=0
            )
            if (
                not is_short
                and self._is_well(process)
                and process.fault_at < since - patience
                and self.server.down_until < since
            ):
                self.fail("healthy-run-is-kept", f"a claimed job was not begun by a healthy worker, and is {status}")
        if token not in self._live:
            return
        process, run, since = self._live[token]
        quiet = self.world.now - max(process.disturbed_at, since)
        is_well = self._is_well(process) and not self.server.was_missed(max(since, self.requests.renewed_at(token)))
        if is_well and not run.cancelled and quiet > (self.settings.lease + 1) * 1e6:
            self.fail("healthy-run-is-kept", f"a healthy run was taken as lost, and the job is {status}")

    def is_draining(self, job_id: str, record: Mapping[str, str]) -> bool:
        """Return whether a draining lease of a job, or of one with its unique key, keeps it from starting."""
        key, stops = record.get("unique_key"), self.server.memory.stops
        return job_id in stops or (key is not None and any(stop.key == key for stop in stops.values()))

    def is_undisturbed(self, process: Process, since: float) -> bool:
        """Return whether neither a process nor the server had a fault since a time, in microseconds."""
        faults = max(process.fault_at, process.disturbed_at, self.server.down_until)
        return faults < since and self._is_well(process)

    def _is_well(self, process: Process) -> bool:
        return process.is_alive and not process.is_paused and not process.is_cut

    def _expect_stop(self, rule: str, token: str, seconds: float, cause: str, *, by_network: bool) -> None:
        """Expect that running code is notified of a stop in time, unless its process is paused meanwhile.

        `by_network`: the server has to tell, so nothing is expected of a process with a bad network.
        """
        process, run, _ = self._live[token]
        paused_until, disturbed_at = process.stands_still_until, process.disturbed_at

        def is_able() -> bool:
            return process.is_alive and not process.is_paused and not (by_network and process.is_cut)

        def check() -> None:
            is_undisturbed = process.stands_still_until == paused_until and is_able()
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
                self._is_well(process)
                and process.fault_at < since - REPLY_WITHIN
                and self.server.down_until < since - REPLY_WITHIN
            )
            if stop is not None and stop.token == token and token not in self.begun and is_undisturbed:
                self.fail(
                    "cancel-reaches-code", f"a cancelled job that had not begun holds its lease {seconds:g} s later"
                )

        self.world.post(seconds * 1e6, check)

    def server_was_up(self, seconds: float) -> bool:
        """Return whether the server was available in the last seconds."""
        return self.world.now - self.server.down_until > seconds * 1e6

    # --- running code ---

    def on_begin(self, run: Run, process: Process, sent_at: float | None = None) -> None:
        """Called by the code of a run when it begins; `sent_at` is when its lease was requested, by its own clock."""
        if self.world.is_over:
            return
        job_type = run.job_type
        self.world.note(f"   {process.name}: code of {job_type} {run.job_id[-6:]} begins")
        begins = self._begins[run.job_id] = self._begins.get(run.job_id, 0) + 1
        record = self.server.memory.records.get(run.job_id, {})
        # Counted from each explicit retry on. Each may be the fault of another job at first, then it is charged.
        if job_type.endswith("poison") and begins > MAX_UNCHARGED_CRASHES + int(run._job.record["max_crashes"]):
            self.fail("poison-is-charged", f"begun {begins} times, charged crashes: {record.get('crashes', 0)}")
        lease = self.settings.lease + (LEARNS_WITHIN if process.owner is not process else 0.0)
        is_late = sent_at is not None and self.world.now / 1e6 + 1000.0 - sent_at > lease
        if is_late and process.owner.is_alive:  # else "orphan-ends" allows its child some time
            self.fail("begins-within-lease", "code begins although its lease has ended")
        kept = self._checkpoints.get(run.job_id, -1)
        got = run.last_checkpoint if run.last_checkpoint is not None else -1
        if record.get("token") == run.token and got < kept:
            self.fail("checkpoint-is-passed-on", f"acknowledged: {kept}; the next attempt got {got}")
        for token, (_, old, _) in tuple(self._live.items()):
            if old.job_id == run.job_id and not old.cancelled and old.fence < run.fence:
                # A run knows when its lease ends, unless the server's clock has stepped: then the server has to tell. So
                # it has to if the run continues in an outage, as a tracked block does.
                must_tell = self.server.clock_stepped_within(self.settings.lease * 1e6)
                must_tell |= old._job.record.get("run_by") == "track"
                seconds, cause = CANCEL_NOTIFIED_WITHIN if must_tell else NOTIFIED_WITHIN, "its successor had begun"
                self._expect_stop("old-run-is-notified", token, seconds, cause, by_network=must_tell)
        if sent_at is not None and run.token in self._started:
            self.requests.on_begin(run, process, sent_at, self._started[run.token][1])
        self.runs.on_begin(run, process)
        self.begun.add(run.token)
        self._live[run.token] = (process, run, self.world.now)

    def on_end(self, run: Run, process: Process, *, returned: bool) -> None:
        """Called by the code of a run when it ends."""
        if self.world.is_over or not process.is_alive:
            return
        for token in [token for token, (_, live, _) in self._live.items() if live is run]:
            del self._live[token]  # a tracked block may have taken another lease since
        began = self.runs.on_end(run)
        if returned:
            self._returned.add(run.token)
            self.requests.on_return(run, process, began)

    def on_progress(self, run: Run, process: Process, reported: float) -> None:
        """Called with the progress that a run reported REPORTED_WITHIN seconds ago, or before that."""
        record, since = self.server.memory.records.get(run.job_id, {}), self.world.now - REPORTED_WITHIN * 1e6
        is_leased = record.get("token") == run.token and not run.cancelled and not self.reports_in_turn
        if is_leased and self.is_undisturbed(process, since) and float(record["progress"]) < reported:
            self.fail(
                "progress-arrives",
                f"{reported} was reported {REPORTED_WITHIN} s ago, and {record['progress']} is stored",
            )

    def on_checkpoint(self, run: Run, value: int) -> None:
        """Called when the store has acknowledged a checkpoint."""
        self._checkpoints[run.job_id] = max(value, self._checkpoints.get(run.job_id, -1))

    def run_in(self, process: Process) -> Run | None:
        """Return a run whose code runs in a process."""
        return next((run for one, run, _ in self._live.values() if one is process), None)

    def on_crash(self, process: Process) -> None:
        """Called when a process is killed."""
        self._live = {token: live for token, live in self._live.items() if live[0] is not process}
        self.runs.on_crash(process)
