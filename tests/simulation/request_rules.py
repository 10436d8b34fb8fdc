"""The rules of what processes ask of the store: how often, and what they know of their leases and of earlier runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from milepost.core.placement import after_groups, awaited_groups, groups_of
from milepost.core.transitions.table import TERMINAL
from milepost.run.forecast.history import decode_history, history_key
from milepost.run.run import Run
from milepost.run.sweeper import MAX_TICK_SECONDS
from tests.simulation.world import Process, VirtualThread

if TYPE_CHECKING:
    from tests.simulation.rules import Rules

REQUEST_RULES = {
    "history-is-kept": "the profile of a completed run is kept, with its stages, and read for the next run of its type",
    "lease-is-not-overrated": "P3: a process takes a lease to begin when its request was sent, not later",
    "purged-in-time": "I7: a job is removed when its retention time is over, and not before",
    "requests-are-spaced": "a process sends heartbeats, sweeps and purges no more often than its settings say",
}
PROFILED, STAGES = "patient", 3
"""The type of job that has stages, and how many."""
HISTORY_WITHIN = 8.0
"""Seconds within which the profile of a run is written."""
PURGE_INTERVAL = 60.0
LATE_MICROS = 10_000_000
"""Microseconds between the decision of a purge and its arrival, at most."""
CRASH_MARK = "crash/"
"""The key of the note that several jobs of a process were lost."""


class RequestRules:
    """Checks the requests of one run of the simulation."""

    def __init__(self, rules: Rules) -> None:
        self._rules, self._fail, self._world, self._server = rules, rules.fail, rules.world, rules.server
        self._asked_at: dict[tuple[int, str], int] = defaultdict(lambda: -(1 << 40))
        """When each process last sent a request of a kind; of the sweeps of a tick, the first."""
        self._is_behind: set[tuple[int, str]] = set()
        """The processes and kinds whose last reply said that there is more to do."""
        self._found: dict[VirtualThread | None, tuple[int, str] | None] = {}
        """The process and kind of the last sweep of each thread, if it found something."""
        self._renewed: dict[str, int] = {}
        """When the store last renewed the lease of a token."""
        self._history_read: set[int] = set()
        self._ended_at: dict[str, int] = {}
        self._kept: set[tuple[str, int]] = set()
        """Jobs that a purge had to keep, each with the time from which it counts their retention since."""
        self.purged: set[str] = set()

    def on_write(self, job_id: str, new: Mapping[str, str]) -> None:
        """Note when a job has ended."""
        if new["status"] in TERMINAL:
            self._ended_at.setdefault(job_id, self._world.now)
        else:
            self._ended_at.pop(job_id, None)

    def on_call(self, process: Process, method: str, kwargs: Any) -> None:
        """Check a request before it is sent for the first time."""
        if self._world.current is not None:
            self._rules.logs.on_call(self._world.current)
        settings = self._rules.settings
        if method == "sweep":
            spacing = settings.sweep_interval
        elif method == "purge":
            spacing = 0.5 * min(PURGE_INTERVAL, settings.job_ttl)  # it asks for the time first
        elif method == "heartbeat":
            # The worker wakes its heartbeat when it has reason to.
            spacing = 0.0 if process.name.startswith("worker") else settings.heartbeat
        else:
            return
        key = (process.pid, self._kind(method, kwargs))
        is_behind = key in self._is_behind
        if method == "heartbeat":
            is_behind = any(pid == process.pid for pid, _ in self._is_behind)
        seconds = (self._world.now - self._asked_at[key]) / 1e6
        is_late = method == "purge" and not self._rules.is_undisturbed(process, self._asked_at[key] - 2e6 * spacing)
        if seconds < 0.99 * spacing and not is_behind and not is_late:
            self._fail("requests-are-spaced", f"{process.name} sent {method} after {seconds:.3f} s")
        if method == "sweep" and kwargs["interval"] == 0 and not kwargs["task_queue"] and not is_behind:
            self._fail("requests-are-spaced", f"{process.name} swept beside others")
        # A tick that finds much sweeps again at once. Its first sweep has set the time of the next one.
        if method != "sweep" or not is_behind or seconds >= MAX_TICK_SECONDS:
            self._asked_at[key] = self._world.now

    def _kind(self, method: str, kwargs: Any) -> str:
        """Return what spaces its requests by itself: a process may have two threads that sweep and purge."""
        thread = self._world.current.name if self._world.current is not None and method != "heartbeat" else ""
        return f"{method} {kwargs.get('task_queue')} {thread}"

    def on_request(self, method: str, args: Any, kwargs: Any, answer: Any) -> None:
        """Note what the store has answered."""
        pid = self._server.requesting.pid if self._server.requesting is not None else 0
        if method in ("heartbeat", "renew") and args[-1] is not None:
            self._renewed |= {token: self._world.now for _, token in args[-2]}
        elif method == "kv_put" and args[0].startswith(CRASH_MARK):
            self._rules.changes.on_mark(args[0].removeprefix(CRASH_MARK))
        elif method == "kv_get" and args[0] == history_key(PROFILED):
            self._history_read.add(pid)
        elif method == "purge":
            self._note_kept()

    def _note_kept(self) -> None:
        """Note the jobs that others need, and whose retention is counted anew from a time that the clock has reached."""
        memory = self._server.memory
        for kept in memory.kept_since.items():
            if kept not in self._kept and kept[1] <= memory.now and self._is_needed(kept[0]):
                self._kept.add(kept)

    def _is_needed(self, job_id: str) -> bool:
        """Return whether an open job waits for this one. While there are children, any job may belong to them."""
        records = self._server.memory.records
        groups = groups_of(job_id, records[job_id])
        waiters = (record for record in records.values() if "completed" not in record)
        awaited = {group for record in waiters for group in after_groups(record.get("labels", ""))}
        return not awaited.isdisjoint(groups) or any("child_key" in record for record in records.values())

    def renewed_at(self, token: str) -> int:
        """Return when the store last renewed the lease of a token, 0 for never."""
        return self._renewed.get(token, 0)

    def on_reply(self, process: Process, method: str, kwargs: Any, reply: Any) -> None:
        """Note whether the reply says that there is more to do."""
        if method in ("sweep", "purge"):
            key = (process.pid, self._kind(method, kwargs))
            (self._is_behind.add if reply.more else self._is_behind.discard)(key)
            if method == "sweep":
                self._found[self._world.current] = key if reply.due else None

    def on_no_reply(self, thread: VirtualThread) -> None:
        """Note that a request was given up. If it had the changes of a sweep, what this has found is still due."""
        self._rules.logs.on_no_reply(thread)
        if (key := self._found.get(thread)) is not None:
            self._is_behind.add(key)

    def on_purge(self, removed: dict[str, Any]) -> None:
        """Check the records that a purge has removed."""
        ttl = int(self._rules.settings.job_ttl * 1e6)
        until = self._server.memory.now - ttl
        steps, process = self._server.clock_steps, self._server.requesting
        # A purge that was decided by a clock that was ahead may arrive after that, also after a pause of its process.
        decided_at = max(steps[-1], process.disturbed_at if process is not None else 0) if steps else -LATE_MICROS
        is_right = self._world.now - decided_at > LATE_MICROS
        for job_id, record in removed.items():
            # A job that ended while the clock was ahead is removed when its time is over by a clock that is right.
            is_early = int(record.get("completed", 0)) > until and self._world.now - self._ended_at[job_id] < ttl
            is_early &= is_right
            if record["status"] not in TERMINAL or is_early:
                self._fail("purged-in-time", f"a {record['status']} job was removed early")
            self.purged.add(job_id)

    def at_rest(self) -> None:
        """Check that nothing is left whose retention time is over. What jobs of groups wait for may be kept for longer."""
        memory, settings = self._server.memory, self._rules.settings
        if any(awaited_groups(record) or "child_key" in record for record in memory.records.values()):
            return
        late = memory.now - (settings.job_ttl + min(PURGE_INTERVAL, settings.job_ttl) + 3) * 1e6

        def is_over(job_id: str, record: Mapping[str, str]) -> bool:
            # The retention of a job that others needed is counted from the purge that kept it. If the clock was ahead then, that
            # time is still to come, as is the end of a job that ended then. Those that needed it may be gone.
            kept = (job_id, memory.kept_since.get(job_id, 0))
            return max(int(record.get("completed", late)), kept[1] if kept in self._kept else 0) < late

        if old := [job_id for job_id, record in memory.records.items() if is_over(job_id, record)]:
            self._fail("purged-in-time", f"{len(old)} jobs have not been removed")

    # --- running code ---

    def on_begin(self, run: Run, process: Process, sent_at: float, started_at: int) -> None:
        """Check since when a process believes to have the lease of a run, by its own clock."""
        if (sent_at - 1000.0) * 1e6 > max(started_at, self.renewed_at(run.token)) + 1:
            self._fail("lease-is-not-overrated", "a lease is taken to begin after the store has given it")
        if run.job_type == PROFILED:
            since = self._world.now

            def check() -> None:
                is_running = self._rules.runs.is_live(run) and not run.cancelled
                if is_running and self._rules.is_undisturbed(process, since) and process.pid not in self._history_read:
                    self._fail("history-is-kept", "the history of a running job was not read")

            self._world.post(HISTORY_WITHIN * 1e6, check)

    def on_return(self, run: Run, process: Process, began: int) -> None:
        """Expect the profile of a run whose code has returned."""
        if run.job_type != PROFILED or run.cancelled or "segments" in run._job.record:
            return  # of the last segment alone no profile is kept

        def check() -> None:
            record = self._server.memory.records.get(run.job_id, {})
            is_complete = record.get("status") == "completed" and record.get("attempt") == str(run.attempt)
            if is_complete and self._rules.is_undisturbed(process, began):
                text, _, _ = self._server.memory.values.get(history_key(PROFILED), ("", 0, 0))
                profiles = decode_history(text) if text else ()
                if not any(len(profile.parts) == STAGES for profile in profiles):
                    self._fail("history-is-kept", f"of a completed run; {len(profiles)} others are kept")

        self._world.post(HISTORY_WITHIN * 1e6, check)
