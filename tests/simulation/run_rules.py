"""The rules of running code: its reports arrive, the reason of its stop is true, and no more of it runs at once than may."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from milepost.core.errors import JobCancelled, JobPaused, JobReleased, JobTimedOut, LeaseLost, RunStop
from milepost.core.serialization import from_json
from milepost.run.run import Run
from tests.simulation.world import Process

if TYPE_CHECKING:
    from tests.simulation.rules import Rules

RUN_RULES = {
    "claimed-jobs-begin": "P2: a worker begins a job soon after its claim, or releases it",
    "concurrency-holds": "P2: a worker runs at most as many jobs at once as it may",
    "error-is-of-the-code": "P5: a run fails because its code has raised an error, or at its timeout",
    "log-lines-arrive": "P5: log lines of a healthy run are stored a few heartbeats later",
    "log-lines-in-order": "P5: the log lines of a run are stored once and in order",
    "log-lines-are-kept": "P5: all log lines of a run are stored when it completes",
    "max-jobs-holds": "a worker begins no more jobs than it may, and ends after them",
    "overrun-is-recorded": "P4: code that continues after the grace period is recorded so, and no other code is",
    "report-has-its-kind": "P5: an event of a stage or of a stall reports one",
    "suspect-runs-alone": "P2: a job whose last run was lost with others begins when its worker has no other lease",
    "stop-has-its-reason": "P4: code gets the true reason of its stop",
}
LINES = {"patient": 12, "child_async": 6}
"""The types of job that log, and how many lines."""
ERRORS = ("not yet", "timeout of ")
"""How the errors begin with which the code of the job types fails."""
REPORTED_WITHIN = 2.4
"""Seconds: several heartbeats."""
REPORTED_WITHIN_IN_TURN = 4.8
REPLY_WITHIN = 8_000_000
"""Microseconds after which a request that was disturbed has its reply, or is given up."""
BEGUN_WITHIN = 1.6
"""Seconds within which a healthy worker begins what it has claimed."""
CANCELS = frozenset(("cancel", "cancel_orphan"))


class RunRules:
    """Checks the running code of one run of the simulation. `limit` is the concurrency of a worker."""

    def __init__(self, rules: Rules, limit: int) -> None:
        self._rules, self._fail, self._world, self._server = rules, rules.fail, rules.world, rules.server
        self._limit = limit
        self._live: dict[int, tuple[Process, Run, int]] = {}
        self._stops: dict[str, tuple[set[str], int]] = {}
        """Why the run of each token was stopped in the store, and since when."""
        self._begun: dict[int, int] = defaultdict(int)
        """How many jobs each process has begun."""
        self._lost: set[str] = set()
        """The tokens whose lease ended without their code, or that its worker has ended."""
        self._reported: set[str] = set()
        """The tokens whose run has reported its stages."""
        self._lines: dict[str, int] = defaultdict(int)
        """How many log lines of each token are stored."""

    # --- each write ---

    def on_write(self, job_id: str, change: Any, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Check an accepted write; `new` is empty if it removed the record."""
        name, stop = change.transition.name, self._server.memory.stops.get(job_id)
        if not new or name in CANCELS or name == "pause":
            why = "deleted" if not new else "paused" if name == "pause" else "cancelled"
            if stop is not None:
                self._note_stop(stop.token, why, new.get("stop_at", ""))
        elif name == "receipt":
            self._lost.add(change.values[0])
        elif "token" in old and new.get("token") != old["token"]:
            self._lost.add(old["token"])
            self._stops.setdefault(old["token"], (set(), self._world.now))
        if name == "log":
            self._check_lines(change.values[0], change.values[1])
        elif name == "complete":
            logged, stored = LINES.get(new["type"], 0), self._lines[old["token"]]
            if stored < logged:
                self._fail("log-lines-are-kept", f"{stored} of {logged} lines are stored")
        elif name == "fail" and new["type"] != "tracked" and not new["error"].startswith(ERRORS):
            self._fail("error-is-of-the-code", f"a {new['type']} job failed: {new['error']}")
        elif name == "overrun":
            _, since = self._stops.get(change.values[0], (set(), 0))
            if self._world.now - since < self._rules.settings.grace * 1e6:
                self._fail("overrun-is-recorded", f"{(self._world.now - since) / 1e6:.1f} s after the stop")
        elif name in ("progress", "stage", "stalled"):
            changed = {part for part in ("stage", "stalled") if _part(part, old) != _part(part, new)}
            is_first = old["token"] not in self._reported  # of a segment, which reports the stages of the record again
            if name == "stage":
                self._reported.add(old["token"])
            if name not in (changed or {"progress"}) and not (is_first and name == "stage"):
                self._fail("report-has-its-kind", f"{name} was reported, and {changed or 'progress'} changed")

    def _note_stop(self, token: str, why: str, stop_at: str) -> None:
        self._stops.setdefault(token, (set(), self._world.now))[0].add(why)
        live = next((one for one in self._live.values() if one[1].token == token), None)
        if live is not None and why == "cancelled":
            self._expect_overrun(live[0], live[1], token, stop_at)

    def _expect_overrun(self, process: Process, run: Run, token: str, stop_at: str) -> None:
        """Expect that the record says so if the code of a cancelled run continues after the grace period."""
        seconds, since = self._rules.settings.grace + 2 * REPORTED_WITHIN, self._world.now

        def check() -> None:
            record, stop = self._server.memory.records.get(run.job_id, {}), self._server.memory.stops.get(run.job_id)
            is_open = stop is not None and stop.token == token and record.get("stop_at") == stop_at
            is_running = self.is_live(run) and self._rules.is_undisturbed(process, since - 1_000_000)
            if is_open and is_running and record.get("stop_how") != "still_running":
                self._fail("overrun-is-recorded", f"not recorded {seconds:g} s after the cancel")

        self._world.post(seconds * 1e6, check)

    def _check_lines(self, token: str, text: str) -> None:
        for line in from_json(text)["lines"]:
            number = int(line["text"].partition(" ")[2]) if line["text"].startswith("line ") else -1
            if number >= 0:
                if number != self._lines[token]:
                    self._fail("log-lines-in-order", f"line {number} was stored after {self._lines[token]} lines")
                self._lines[token] += 1

    def on_start(self, token: str, job_id: str, record: Mapping[str, str], process: Process) -> None:
        """Expect that the worker that has claimed a job begins it soon, or lets go of it."""
        since = self._world.now - REPLY_WITHIN

        def check() -> None:
            is_held = self._server.memory.records.get(job_id, {}).get("token") == token
            is_held &= process.memory.get("slow_until", 0) <= since  # by its child processes
            if is_held and token not in self._rules.begun and self._rules.is_undisturbed(process, since):
                self._fail(
                    "claimed-jobs-begin", f"a {record['type']} job was not begun {BEGUN_WITHIN} s after its claim"
                )

        if process.name.startswith("worker") and "suspect" not in record:
            self._world.post(BEGUN_WITHIN * 1e6, check)

    # --- running code ---

    def on_begin(self, run: Run, process: Process) -> None:
        """Note that code begins, and look at the reason of its stop from now on."""
        stop = run.stop

        def checked(reason: RunStop) -> None:
            if not run._stop_reasons and self.is_live(run) and not self._world.is_over:
                self._check_reason(reason, run, process)
            stop(reason)

        run.stop = checked  # type: ignore[method-assign]
        self._live[id(run)] = (process, run, self._world.now)
        owner = process.owner
        if owner.name.startswith("worker") and owner.is_alive:
            is_suspect = "suspect" in run._job.record and owner is process
            if is_suspect and self._rules.is_undisturbed(process, self._world.now - REPLY_WITHIN):
                self._check_alone(run)
            number = sum(one.owner is owner for one, _, _ in self._live.values())
            if number > self._limit:
                self._fail("concurrency-holds", f"{number} jobs run in {owner.name}")
            self._begun[owner.pid] += 1
            if self._begun[owner.pid] > owner.memory.get("max_jobs", 1 << 30):
                self._fail("max-jobs-holds", f"{owner.name} began {self._begun[owner.pid]} jobs")

    def _check_alone(self, run: Run) -> None:
        worker, records = run._job.record["worker"], self._server.memory.records.items()
        stopped = {one.job_id for _, one, _ in self._live.values() if one.cancelled}  # timed out, for example
        leased = {job_id for job_id, one in records if one.get("worker") == worker and one["status"] == "running"}
        others = leased - stopped
        if len(others) > 1:
            self._fail("suspect-runs-alone", f"a suspect begins, and its worker has {len(others)} leases")

    def at_rest(self) -> None:
        """Check that each worker has ended that has begun as many jobs as it may."""
        for process in self._world.processes:
            if process.is_alive and self._begun[process.pid] >= process.memory.get("max_jobs", 1 << 30):
                self._fail("max-jobs-holds", f"{process.name} continues after its last job")

    def on_log(self, run: Run, process: Process, number: int) -> None:
        """Called after a run has logged ``line NUMBER``."""
        token, since = run.token, self._world.now
        seconds = REPORTED_WITHIN_IN_TURN if self._rules.reports_in_turn else REPORTED_WITHIN

        def check() -> None:
            if (
                self._lines[token] <= number
                and self.is_live(run)
                and not run.cancelled
                and self._server.memory.records.get(run.job_id, {}).get("token") == token
                and self._rules.is_undisturbed(process, since)
            ):
                self._fail("log-lines-arrive", f"line {number} is not stored {seconds} s later")

        self._world.post(seconds * 1e6, check)

    def on_end(self, run: Run) -> int:
        """Forget code that has ended; return when it began."""
        _, _, began = self._live.pop(id(run), (None, None, self._world.now))
        return began

    def _check_reason(self, reason: RunStop, run: Run, process: Process) -> None:
        token, (_, _, began) = run.token, self._live[id(run)]
        why, _ = self._stops.get(token, (set(), 0))
        worker = process.memory.get("worker")
        was_lost_before = token in self._lost and run.job_id in self._rules.removed
        is_gone = "deleted" in why or was_lost_before or run.job_id in self._rules.requests.purged
        match reason:
            case JobCancelled():
                is_true = is_gone or ("cancelled" in why and "deleted" not in str(reason))
            case JobPaused():
                is_true = "paused" in why
            case LeaseLost() if "no longer exists" in str(reason):
                is_true = (token in self._lost or is_gone) and not self._is_draining(run)
            case LeaseLost():
                is_true = token in self._lost and "no longer has" not in str(reason)  # the server loses no single lease
            case JobTimedOut():
                is_true = "timeout" in run._job.record
            case JobReleased() if "unavailable" in str(reason):
                quiet = self._world.now - max(began, process.disturbed_at, process.fault_at, self._server.down_until)
                is_true = process.is_cut or quiet < (self._rules.settings.lease + 1) * 1e6
            case JobReleased():
                is_true = worker is not None and worker.is_stopping
            case _:
                is_true = True
        if not is_true:
            self._fail(
                "stop-has-its-reason",
                f"{type(reason).__name__}: {reason}; it was {', '.join(sorted(why)) or 'not stopped'}",
            )

    def _is_draining(self, run: Run) -> bool:
        """Return whether a run still has a draining lease. A failover may have brought it back."""
        stop = self._server.memory.stops.get(run.job_id)
        has_failed_over = self._server.clock_stepped_within(REPLY_WITHIN)
        return stop is not None and stop.token == run.token and not has_failed_over

    def on_crash(self, process: Process) -> None:
        """Forget the code of a process that was killed."""
        self._live = {key: live for key, live in self._live.items() if live[0] is not process}

    def is_live(self, run: Run) -> bool:
        """Return whether the code of a run has begun and not ended."""
        return id(run) in self._live


def _part(name: str, record: Mapping[str, str]) -> Any:
    """Return the stall of a record, or the names of its stages and whether each has ended."""
    if name == "stalled":
        return record.get("stalled")
    return [(stage["name"], "ended_at" in stage) for stage in from_json(record.get("stages", "[]"))]
