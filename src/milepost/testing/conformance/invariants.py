"""What holds of every record at every instant, and of every step from one to the next (I4, I5, I9, I10, I11).

Pure: jobs in, AssertionError out. Knows no store.
"""

from __future__ import annotations

from milepost.core.change import Change, Record, repeated
from milepost.core.job import Job
from milepost.stores.protocol import Outcome

LEASED = ("track", "worker", "engine")


def check_record(record: Record) -> None:
    """What one record says of itself must fit together."""
    status, driver = record["status"], record.get("driver", "caller")
    leased = "token" in record
    assert leased is ("lease" in record), f"a token without a lease, or a lease without: {dict(record)}"
    assert leased is (status == "running" and driver in LEASED), f"I5, {status} under {driver}: {dict(record)}"
    assert 0.0 <= float(record["progress"]) <= 1.0, f"I9: {record['progress']}"
    ended = status in ("completed", "failed", "cancelled")
    assert ("completed" in record) is ended, f"I10, completed: {dict(record)}"
    assert not (status == "pending" and "started" in record), f"I10, started while pending: {dict(record)}"
    assert status not in ("running", "completed") or "started" in record, f"I10, never started: {dict(record)}"
    times = [int(record[name]) for name in ("created", "started", "completed") if name in record]
    assert times == sorted(times), f"I10, order of times: {dict(record)}"
    assert not record.get("queue") or status == "pending", f"{status} and in the queue: {dict(record)}"
    assert int(record.get("attempt", 0)) >= 0, f"I15: {dict(record)}"
    assert not record.get("lease") or record["token"].partition(":")[0].isdigit(), record["token"]


def check_step(change: Change, before: Job | None, outcome: Outcome, after: Job | None) -> None:
    """One change between two looks at its record, with nobody else writing."""
    if not outcome.accepted or outcome.repeated:
        assert _record(after) == _record(before), f"{change.shape.name} was refused or repeated, and changed the record"
        if not outcome.accepted:
            assert _record(outcome.job) == _record(before), "a refusal carries the record as it is"
        return
    event = change.shape.cases[outcome.case].event
    if after is None:
        assert outcome.job is None
        return
    assert _record(outcome.job) == _record(after), "the answer is not the record as it is now"
    record, old = after.record, _record(before)
    step = int(record.get("version", 0)) - int(old.get("version", 0))
    assert step == (1 if event else 0), f"I11: version moved by {step} in {change.shape.name}"
    assert repeated(change, record) == outcome.case, f"{change.shape.name} is not known to its record: {dict(record)}"
    if change.shape.name in _OURS:
        check_record(record)
        same_attempt = old.get("status") == record["status"] and old.get("token") == record.get("token")
        if same_attempt:
            assert float(record["progress"]) >= float(old["progress"]), "I9: progress went back"
        if "token" in record and "token" in old and record["token"] != old["token"]:
            assert fence(record["token"]) > fence(old["token"]), "I4: a fence did not grow"


def fence(token: str) -> int:
    """The fence number of a token."""
    return int(token.partition(":")[0])


def _record(job: Job | None) -> dict[str, str]:
    return dict(job.record) if job is not None else {}


_OURS = frozenset(
    [
        "create",
        "start",
        "deliver",
        "adopt",
        "reopen",
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
        "cancel_own",
        "delete",
        "receipt",
        "lost",
        "crash",
        "expire",
        "quiet",
    ]
)
"""The shapes of the lifecycle; those that a test makes up obey no lifecycle."""
