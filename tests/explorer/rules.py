"""What must hold for every change. A rule returns what is wrong, or None."""

from __future__ import annotations

from collections.abc import Callable

from milepost.core.transitions.change import Record
from milepost.testing.conformance.harness import check_record
from tests.explorer.actors import Step

Rule = Callable[[Step], str | None]

OF_RUN = ("progress", "checkpoint", "complete", "fail", "release", "self_cancel", "crash")
"""What only the run may write that has the live lease."""
ALLOWED = {
    "create": ("-pending",),
    "start": ("pending-running",),
    "complete": ("running-completed",),
    "fail": ("running-pending", "running-failed"),
    "release": ("running-pending",),
    "self_cancel": ("running-cancelled",),
    "crash": ("running-pending", "running-failed"),
    "cancel": ("pending-cancelled", "running-cancelled"),
    "retry": ("failed-pending", "cancelled-pending"),
    "delete": ("pending-", "running-", "completed-", "failed-", "cancelled-"),
    "lease_expired": ("running-pending", "running-failed"),
    "expire": ("pending-failed",),
}
"""The moves that each request may make, after the documentation of the lifecycle. All others keep the status."""


def legal_move(step: Step) -> str | None:
    """A change makes only the moves of its kind."""
    old, new = _status(step.before), _status(step.after)
    if old != new and f"{old}-{new}" not in ALLOWED.get(step.name, ()):
        return f"{step.name} moved the job from {old or 'nothing'} to {new or 'nothing'}"
    return None


def no_stale_write(step: Step) -> str | None:
    """A write of a run is accepted only under its live lease, and log lines also under its draining lease."""
    if not step.accepted or step.repeated or step.token is None:
        return None
    holds = (step.before or {}).get("token") == step.token
    drains = step.stopping_before is not None and step.stopping_before.token == step.token
    if (step.name in OF_RUN and not holds) or (step.name == "log" and not (holds or drains)):
        return f"{step.name} of {step.token} was accepted, which does not have the lease"
    return None


def refused_writes_nothing(step: Step) -> str | None:
    """A refused or repeated change leaves the job as it was."""
    if (not step.accepted or step.repeated) and (step.before != step.after or step.stopping_before != step.stopping):
        return f"{step.name} was refused or repeated, and changed the job"
    return None


def applied_once(step: Step) -> str | None:
    """A request that is delivered twice is applied once."""
    if step.delivered_again and step.accepted and not step.repeated and step.accepted_at_first:
        return f"{step.name} was applied twice"
    return None


def no_run_of_a_late_claim(step: Step) -> str | None:
    """A claim that is delivered again starts nothing: no worker would run it."""
    return "a claim that was delivered again started a run" if step.delivered_again and step.name == "start" else None


def consistent_record(step: Step) -> str | None:
    """The fields of the record are consistent: above all, a job is running if and only if it has a lease."""
    if step.after is None or step.after is step.before:
        return None
    try:
        check_record(step.after)
    except AssertionError as error:
        return str(error)
    return None


def budgets_kept(step: Step) -> str | None:
    """No job has more attempts, or more crashes, than it may have."""
    record = step.after or {}
    for spent, most in (("attempt", "max_attempts"), ("crashes", "max_crashes")):
        if int(record.get(spent, 0)) > int(record.get(most, 99)):
            return f"{spent} is {record[spent]} of {record[most]}"
    return None


def no_run_beside_draining_lease(step: Step) -> str | None:
    """A job does not run while the code of an earlier run has not been seen to stop."""
    if _status(step.after) == "running" and step.stopping is not None:
        return f"it runs beside the draining lease of {step.stopping.token}"
    return None


def starts_in_time(step: Step) -> str | None:
    """A job starts between its earliest and its latest start."""
    if step.name != "start" or not step.accepted or step.repeated or step.before is None:
        return None
    earliest, latest = int(step.before.get("not_before", 0)), int(step.before.get("not_after", step.now + 1))
    return None if earliest <= step.now < latest else "it started outside of its times"


def lost_only_when_expired(step: Step) -> str | None:
    """The sweeper ends a lease only when it has expired, and a start deadline only when it has passed."""
    if not step.accepted or step.repeated:
        return None
    before = step.before or {}
    if step.name == "lease_expired" and int(before.get("lease", 0)) > step.now:
        return "a run was taken as lost although its lease had not expired"
    if step.name == "expire" and int(before.get("not_after", 0)) > step.now:
        return "a job failed before its start deadline"
    stopping = step.stopping_before
    if stopping is not None and step.stopping is None and step.token is None and stopping.expires > step.now:
        return f"{step.name} ended a draining lease that had not expired"
    return None


def stop_is_seen_before_it_is_confirmed(step: Step) -> str | None:
    """A receipt confirms the stop of the run that was asked to stop, whose code does not run any more."""
    record = step.after or {}
    if record.get("stop_confirmed") == "1":
        if "stop_at" not in record:
            return "a stop was confirmed that was not requested"
        others = [run for run in step.workers if run and run.mode == "running" and run.token != step.token]
        if any(run.token == record.get("stop_token") for run in others):
            return "a stop was confirmed while the code runs"
    return None


def one_receipt(step: Step) -> str | None:
    """A run confirms its stop once."""
    before = step.before or {}
    confirmed = before.get("stop_confirmed") == "1" and before.get("stop_token") == step.token
    if step.name == "receipt" and step.token and step.accepted and not step.repeated and confirmed:
        return "the stop was confirmed twice"
    return None


def draining_lease_ends_by_its_run(step: Step) -> str | None:
    """Only the run of a draining lease, or its end in time, ends it."""
    stopping = step.stopping_before
    if stopping is not None and step.stopping is None and step.token not in (None, stopping.token):
        return f"{step.name} of {step.token} ended the draining lease of {stopping.token}"
    return None


RULES: tuple[Rule, ...] = (
    legal_move,
    no_stale_write,
    refused_writes_nothing,
    applied_once,
    no_run_of_a_late_claim,
    consistent_record,
    budgets_kept,
    no_run_beside_draining_lease,
    starts_in_time,
    lost_only_when_expired,
    stop_is_seen_before_it_is_confirmed,
    one_receipt,
    draining_lease_ends_by_its_run,
)


def _status(record: Record | None) -> str:
    return "" if record is None else record["status"]
