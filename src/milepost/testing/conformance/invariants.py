"""Invariants of every record and of every change, checked without a store; the numbers are those of docs/reliability.md."""

from __future__ import annotations

from milepost.core.job import Job
from milepost.core.transitions.operation_ids import applied_branch, is_superseded
from milepost.core.transitions.operations import Change, Record
from milepost.stores.protocol import WriteResult

LEASED = ("track", "worker", "external")


def check_record(record: Record) -> None:
    """Assert that the fields of a record are consistent."""
    status, run_by = record["status"], record.get("run_by", "manual")
    leased = "token" in record
    assert leased is ("lease" in record), f"a token without a lease, or a lease without: {dict(record)}"
    assert leased is (status == "running" and run_by in LEASED), f"I5, {status} under {run_by}: {dict(record)}"
    assert 0.0 <= float(record["progress"]) <= 1.0, f"I9: {record['progress']}"
    ended = status in ("completed", "failed", "cancelled")
    assert ("completed" in record) is ended, f"I10, completed: {dict(record)}"
    assert not (status == "pending" and "started" in record), f"I10, started while pending: {dict(record)}"
    assert status not in ("running", "completed") or "started" in record, f"I10, never started: {dict(record)}"
    times = [int(record[name]) for name in ("created", "started", "completed") if name in record]
    assert times == sorted(times), f"I10, order of times: {dict(record)}"
    assert not record.get("ready") or status == "pending", f"{status} and in the queue: {dict(record)}"
    assert int(record.get("attempt", 0)) >= 0, f"I15: {dict(record)}"
    assert not record.get("lease") or record["token"].partition(":")[0].isdigit(), record["token"]


def check_step(change: Change, before: Job | None, outcome: WriteResult, after: Job | None) -> None:
    """Assert the invariants of one change, given the job before and after it."""
    if not outcome.accepted or outcome.repeated:
        assert _record(after) == _record(before), (
            f"{change.transition.name} was refused or repeated, and changed the record"
        )
        if not outcome.accepted:
            assert _record(outcome.job) == _record(before), "a refusal returns the current record"
        return
    event = change.transition.branches[outcome.branch].event
    if after is None:
        assert outcome.job is None
        return
    assert _record(outcome.job) == _record(after), "the returned job is not the current record"
    record, old = after.record, _record(before)
    step = int(record.get("version", 0)) - int(old.get("version", 0))
    assert step == (1 if event else 0), f"I11: version changed by {step} in {change.transition.name}"
    known = applied_branch(change.operation_id, change.transition.retention, record) == outcome.branch
    assert known or is_superseded(change.operation_id, change.transition.retention, record), (
        f"{change.transition.name} is not known to its record: {dict(record)}"
    )
    if change.transition.name in _OURS:
        check_record(record)
        same_attempt = old.get("status") == record["status"] and old.get("token") == record.get("token")
        if same_attempt:
            assert float(record["progress"]) >= float(old["progress"]), "I9: progress went back"
        if "token" in record and "token" in old and record["token"] != old["token"]:
            assert fence(record["token"]) > fence(old["token"]), "I4: the fence did not increase"


def fence(token: str) -> int:
    """Return the fence number of a token."""
    return int(token.partition(":")[0])


def _record(job: Job | None) -> dict[str, str]:
    return dict(job.record) if job is not None else {}


_OURS = frozenset(
    [
        "create",
        "start",
        "deliver",
        "adopt",
        "resume",
        "progress",
        "stage",
        "stalled",
        "log",
        "checkpoint",
        "complete",
        "fail",
        "release",
        "retry",
        "update",
        "cancel",
        "self_cancel",
        "delete",
        "receipt",
        "lease_expired",
        "crash",
        "expire",
        "mark_stale",
    ]
)
"""The transitions of the lifecycle; those that tests define are not checked against it."""
