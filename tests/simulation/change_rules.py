"""The rules of what changes may say: receipts, blame for crashes, and who may still write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from milepost.core.placement import PAUSED
from milepost.run.process_identity import process_of_worker
from milepost.run.sweeper import MAX_UNCHARGED_CRASHES

if TYPE_CHECKING:
    from tests.simulation.rules import Rules

CHANGE_RULES = {
    "blame-is-fair": "P2: a crash is charged to the only job of its process, and to none of several",
    "deadline-holds": "I18: no first start after the deadline, no failure for it before",
    "crashes-are-used-up": "P2: a job that may be retried does not fail before its last crash",
    "crash-loop-is-named": "P2: a job that fails because of its crashes says so, and no other one does",
    "lines-need-a-lease": "P3: log lines are accepted from a run that has its lease, or is stopping",
    "receipt-is-true": "P4: a receipt tells how code stopped: never started, had returned, or is still to stop",
    "pause-can-be-undone": "a pause stops runs of workers only, and a resume lets go what a pause has held",
    "resume-is-of-what-was-read": "P3: a tracked block resumes the record that it has read, not a later one",
    "receipt-has-its-stop": "P4: a receipt is that of the run that was stopped",
    "recovered-when-over": "I6: a run is recovered only when its lease has ended",
}
RESUMED_VERSION = 6
"""The place of the version among the values of a resume."""
DECIDED_WITHIN = 20_000_000
"""Microseconds between the decision of a sweep and its write, at most."""


class ChangeRules:
    """Checks the writes of one run of the simulation."""

    def __init__(self, rules: Rules) -> None:
        self._rules, self._fail, self._server = rules, rules.fail, rules.server
        self._runs_of: dict[str, set[str]] = defaultdict(set)
        """The tokens of the runs of each process."""
        self._ended_at: dict[str, int] = {}
        """When the run of a token ended in its record, other than by a crash."""
        self._shared: set[str] = set()
        """The processes that have lost a lease while they had others."""
        self._draining: dict[str, str] = {}
        """The token of the draining lease of each job."""

    def on_write(self, job_id: str, change: Any, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Check an accepted write; `new` is empty if it removed the record."""
        name, memory = change.transition.name, self._server.memory
        stop = memory.stops.get(job_id)
        if "token" in new and "worker" in new:
            self._runs_of[process_of_worker(new["worker"])].add(new["token"])
        if name in ("log", "overrun") and change.values[0] not in (new.get("token"), stop.token if stop else None):
            self._fail("lines-need-a-lease", f"{name} was accepted without a lease")
        draining = self._draining.pop(job_id, None)
        if stop is not None:
            self._draining[job_id] = stop.token
        if name == "receipt":
            self._check_stop(change.values[0], draining, old, new)
        read = change.values[RESUMED_VERSION] if name == "resume" and old["status"] != "running" else None
        if read not in (None, old.get("version")):
            self._fail("resume-is-of-what-was-read", f"version {read} was read, and {old['version']} was resumed")
        is_undone = name == "resume_paused" and old.get("held") != PAUSED
        if is_undone or (name == "pause" and old["status"] == "running" and old["run_by"] != "worker"):
            self._fail("pause-can-be-undone", f"{name} of a {old['status']} job, run by {old['run_by']}")
        if name in ("cancel", "cancel_orphan", "release_held") and new.get("status") == "cancelled":
            self._check_receipt(old, new, is_stopping=stop is not None)
        if (
            name in ("start", "deliver")
            and "suspended" not in old
            and int(old.get("not_after", memory.now)) < memory.now
        ):
            self._fail("deadline-holds", "a job started after its deadline")
        if name == "expire" and int(old.get("not_after", memory.now + 1)) > memory.now:
            self._fail("deadline-holds", "a job failed before its deadline")
        if name in ("lease_expired", "crash"):
            self._check_spent(old, new)
        if name == "lease_expired":
            if int(old["lease"]) > memory.now:
                self._fail(
                    "recovered-when-over", f"{(int(old['lease']) - memory.now) / 1e6:.1f} s before the end of its lease"
                )
            self._check_blame(old, new)
        elif "token" in old and new.get("token") != old["token"]:
            self._ended_at[old["token"]] = self._rules.world.now

    def on_mark(self, process: str) -> None:
        """Check the note that several jobs of a process were lost, which later losses are judged by."""
        if len(self._recent_runs(process)) < 2:
            self._fail("blame-is-fair", "a process with one job is said to have lost several")
        self._shared.add(process)

    def _recent_runs(self, process: str) -> list[str]:
        """Return the runs of a process that were lost, have not ended, or ended when a sweep may already have decided."""
        since = self._rules.world.now - DECIDED_WITHIN
        return [token for token in self._runs_of[process] if self._ended_at.get(token, since) >= since]

    def _check_receipt(self, old: Mapping[str, str], new: Mapping[str, str], *, is_stopping: bool) -> None:
        if new.get("run_by") == "manual":
            return
        said = new.get("stop_how", "open")
        true = "open" if is_stopping else "cooperative" if "suspended" in old else "never_started"
        if said not in (true, "still_running" if is_stopping else true):
            self._fail("receipt-is-true", f"the receipt of a {old['status']} job says {said}, not {true}")

    def _check_stop(self, token: str, draining: str | None, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Check a receipt: the lease with its token was draining, or had been given up."""
        is_of_last = old.get("stop_token") == token
        is_shown = any(old.get(field) != new.get(field) for field in ("stopped", "stop_how", "stop_confirmed"))
        was_given_up = is_of_last and old.get("stop_how") == "lease_expired"
        if not (draining == token or was_given_up) or (is_shown and not is_of_last):
            self._fail("receipt-has-its-stop", f"the draining lease was {draining}, the receipt is that of {token}")

    def _check_spent(self, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Check that a job with crashes left does not fail, if its type lets a lost run be repeated."""
        crash, most = int(old.get("crashes", 0)) + 1, int(old.get("max_crashes") or 1)
        may_retry = old["run_by"] == "worker" and old.get("on_lost") != "fail"
        if new["status"] == "failed" and may_retry and crash < most:
            self._fail("crashes-are-used-up", f"a job failed at crash {crash} of {most}")

    def _check_loop(self, old: Mapping[str, str], new: Mapping[str, str], *, is_charged: bool) -> None:
        """Check whether the error of a lost job names a crash loop."""
        crashes = int(old.get("crashes", 0)) + 1
        is_loop = is_charged and new["status"] == "failed" and crashes > 1
        if is_loop != new.get("error", "").startswith(f"crashed {crashes} times"):
            self._fail("crash-loop-is-named", f"crash {crashes}, the job is {new['status']}: {new.get('error')}")

    def _check_blame(self, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Check that a job whose run was lost alone is charged: at the second loss, if its code may not have begun."""
        times = int(old.get("suspect", 0))
        process = process_of_worker(old["worker"])
        if len(self._recent_runs(process)) > 1:
            self._shared.add(process)
        is_charged = int(new.get("crashes", 0)) > int(old.get("crashes", 0)) or new["status"] == "failed"
        was_renewed = int(old["lease"]) - int(old["started"]) > self._rules.settings.lease_micros
        was_renewed |= int(old.get("updated", 0)) > int(old["started"])
        if old.get("on_lost") != "fail" and old["run_by"] != "track":
            self._check_loop(old, new, is_charged=is_charged)
        if not is_charged and process not in self._shared and (times or was_renewed):
            self._fail("blame-is-fair", f"a crash was not charged to the only job of its process (suspect {times})")
        if is_charged and not times and not was_renewed and old["run_by"] == "worker" and old.get("on_lost") != "fail":
            self._fail("blame-is-fair", "a crash was charged to a job that may not have begun")
        if times >= (1 if old["run_by"] == "external" else MAX_UNCHARGED_CRASHES) and not is_charged:
            self._fail("blame-is-fair", f"a crash was not charged after {times} others")
