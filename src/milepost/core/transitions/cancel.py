"""Cancel and delete jobs, and record how their code stopped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from milepost.core.transitions.change import Change, Const, Field, Guard, Operation, Param
from milepost.core.transitions.table import (
    ANY,
    CANCELLED,
    DRAIN_LEASE,
    END_JOB,
    END_LEASE,
    END_WAIT,
    HOLDS_DRAINING_LEASE,
    HOLDS_TOKEN,
    NONE,
    PENDING,
    REPORT,
    REPORT_OPS,
    REQUEST_STOP,
    RUNNING,
    SET_CALLER_FIELDS,
    TransitionTemplate,
    bind,
    branch,
    template,
)

_CANCEL_NAMES = ("by", "why", "message", "progress", "error", "result")
_CANCEL_EMIT = ("progress", "message", "stop_by", "stop_reason", "stop_how", "stop_confirmed")


def _stopped(how: str, confirmed: str) -> tuple[Operation, ...]:
    seen: tuple[Operation, ...] = (("stamp", "stopped"),) if confirmed == "1" else ()
    return (*seen, ("set", "stop_how", Const(how)), ("set", "stop_confirmed", Const(confirmed)))


NEVER_STARTED: tuple[Operation, ...] = (*DRAIN_LEASE, *_stopped("never_started", "1"), *END_WAIT)
CANCELS_OF_WORKER_JOBS: tuple[tuple[str, tuple[Guard, ...], tuple[Operation, ...]], ...] = (
    (RUNNING, (), DRAIN_LEASE),
    # The job waits for its last run to stop, so the receipt of that run answers this cancel too. That its code continues
    # after the grace period is reported once, so it stays in the record.
    (
        PENDING,
        (("stopping", Field("stop_token")),),
        (*(operation for operation in REQUEST_STOP if operation[1] not in ("stop_token", "stop_how")), *END_WAIT),
    ),
    # The code of its last segment had returned when it was suspended.
    (PENDING, (("has", "suspended"),), (*DRAIN_LEASE, *_stopped("cooperative", "1"), *END_WAIT)),
    (PENDING, (), NEVER_STARTED),
)
"""How a job is cancelled that workers run: its status, guards and operations."""
_CANCEL = template(
    "cancel",
    _CANCEL_NAMES,
    *(
        branch(
            (source,),
            CANCELLED,
            guards=guards,
            ops=(*SET_CALLER_FIELDS, *ops, *END_JOB),
            event="cancelled",
            emit=_CANCEL_EMIT,
        )
        for source, guards, ops in (
            (RUNNING, (("has", "token"),), DRAIN_LEASE),
            (RUNNING, (), (*DRAIN_LEASE, *_stopped("not_supervised", "0"), *END_WAIT)),
            *CANCELS_OF_WORKER_JOBS[1:],
        )
    ),
    retention="callers",
)
_SELF_CANCEL = template(
    "self_cancel",
    ("token", "by", "why", *REPORT),
    branch(
        (RUNNING,),
        CANCELLED,
        guards=(HOLDS_TOKEN,),
        ops=(
            *REPORT_OPS,
            *REQUEST_STOP,
            *END_LEASE,
            *_stopped("cooperative", "1"),
            *END_JOB,
        ),
        event="cancelled",
        emit=_CANCEL_EMIT,
    ),
)
_DELETE = template(
    "delete",
    (),
    branch(ANY, ops=(("stop",), ("remove",)), event="deleted"),
    retention="callers",
)


@cache
def _receipts(overdue: bool, seen: bool) -> TransitionTemplate:
    lease: Guard = ("overdue" if overdue else "stopping", Param("token"))
    receipt_ops: tuple[Operation, ...] = (
        *((("stamp", "stopped"),) if seen else ()),
        ("set", "stop_how", Param("how")),
        ("set", "stop_confirmed", Param("confirmed")),
        ("set", "late_result", Param("late_result")),
    )
    mine: Guard = ("eq", "stop_token", Param("token"))
    emit = ("stop_how", "stop_confirmed")
    ops: tuple[Operation, ...] = (("drop",), *receipt_ops, ("set", "usage", Param("usage")))
    received = branch(ANY, guards=(lease, mine), ops=ops, event="receipt", emit=emit)
    gone = branch((NONE, *ANY), guards=(lease,), ops=(("drop",),))
    late = branch(
        ANY, guards=(mine, ("eq", "stop_how", Const("lease_expired"))), ops=receipt_ops, event="receipt", emit=emit
    )
    return template(
        "receipt", ("token", "how", "confirmed", "late_result", "usage"), received, gone, *((late,) if seen else ())
    )


def plan_cancel(
    operation_id: str,
    *,
    by: str | None = None,
    why: str | None = None,
    message: str | None = None,
    progress: str | None = None,
    error: str | None = None,
    result: str | None = None,
) -> Change:
    """Cancel a job, effective immediately. The lease of a run drains; its receipt follows."""
    return bind(_CANCEL, operation_id, by=by, why=why, message=message, progress=progress, error=error, result=result)


def plan_self_cancel(operation_id: str, token: str, report: Mapping[str, str], *, by: str, why: str) -> Change:
    """Cancel a job by its own run, whose code has stopped, for example after Ctrl-C."""
    return bind(_SELF_CANCEL, operation_id, token=token, by=by, why=why, **report)


def plan_delete(operation_id: str) -> Change:
    """Remove a record; a running job is cancelled in the same step."""
    return bind(_DELETE, operation_id)


def plan_receipt(
    operation_id: str,
    token: str,
    how: str,
    *,
    confirmed: bool,
    late_result: str | None = None,
    usage: str | None = None,
) -> Change:
    """Record how the code of a draining lease stopped; accepted once, even after the lease expired.

    `usage` is what the runs of the job have spent. It is left out once the lease has expired: another run may have added to it.
    """
    sure = "1" if confirmed else "0"
    form = _receipts(False, confirmed)
    return bind(form, operation_id, token=token, how=how, confirmed=sure, late_result=late_result, usage=usage)


STILL_RUNNING = "still_running"
_OVERRUN = template(
    "overrun",
    ("token", "lines"),
    branch(
        ANY,
        guards=HOLDS_DRAINING_LEASE,
        ops=(("set", "stop_how", Const(STILL_RUNNING)),),
        event="log",
        keep="list",
        data=Param("lines"),
    ),
    retention="reports",
)


def plan_overrun(operation_id: str, token: str, lines: str) -> Change:
    """Record that the code of a draining lease continues past the grace period; the receipt stays open."""
    return bind(_OVERRUN, operation_id, token=token, lines=lines)


def plan_drain_timeout(operation_id: str, token: str) -> Change:
    """End an expired draining lease; the stop stays unconfirmed."""
    return bind(_receipts(True, False), operation_id, token=token, how="lease_expired", confirmed="0")
