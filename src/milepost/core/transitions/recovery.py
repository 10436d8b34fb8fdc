"""Recover jobs whose owner is gone: expired leases, crashes, missed start deadlines, stale jobs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from milepost.core.transitions.change import Branch, Change, Const, Guard, Operation, Param
from milepost.core.transitions.table import (
    ACTIVE,
    ARCHIVE_FAILURE,
    END_JOB,
    END_LEASE,
    END_WAIT,
    FAILED,
    HOLDS_TOKEN,
    PENDING,
    REPORT,
    REPORT_OPS,
    RETURN_TO_PENDING,
    RUNNING,
    SET_FAILURE,
    TransitionTemplate,
    bind,
    branch,
    template,
)

_END_LOST: tuple[Operation, ...] = (*END_LEASE, *END_JOB)
_REQUEUE: tuple[Operation, ...] = (*END_LEASE, *RETURN_TO_PENDING, ("add", "attempt", Const("-1")))
_LOST_RUN = ("error", "stages")
"""What the event of a lost run says about it, because the record soon describes the next run."""
_CHARGE_CRASH: Operation = ("add", "crashes", Const("1"))


def _lost(*owner_is_gone: Guard, charged: bool = True, report: tuple[Operation, ...] = ()) -> tuple[Branch, ...]:
    """Return the branches for a run without its owner: fail it if it may not be retried or is in a crash loop, else retry."""
    fails = [
        branch(
            (RUNNING,),
            FAILED,
            guards=(*owner_is_gone, no_retry),
            ops=(*report, *SET_FAILURE, *_END_LOST),
            event="failed",
            emit=("error",),
        )
        for no_retry in (("eq", "run_by", Const("track")), ("eq", "on_lost", Const("fail")))
    ]
    if not charged:
        suspect: Operation = ("add", "suspect", Const("1"))
        retry = branch(
            (RUNNING,),
            PENDING,
            guards=owner_is_gone,
            ops=(*SET_FAILURE, *_REQUEUE, suspect),
            event="retrying",
            emit=("suspect", *_LOST_RUN),
        )
        return (*fails, retry)
    crash_loop: tuple[Operation, ...] = (
        ("set", "error", Param("error")),
        *ARCHIVE_FAILURE,
        ("set", "failure", Param("crash_loop")),
        *_END_LOST,
        _CHARGE_CRASH,
        ("add", "attempt", Const("-1")),
    )
    return (
        *fails,
        branch(
            (RUNNING,),
            FAILED,
            guards=(*owner_is_gone, ("ge", "crashes", Param("last"))),
            ops=(*report, *crash_loop),
            event="failed",
            emit=("error",),
        ),
        branch(
            (RUNNING,),
            PENDING,
            guards=owner_is_gone,
            ops=(*report, *SET_FAILURE, _CHARGE_CRASH, *_REQUEUE),
            event="retrying",
            emit=("crashes", *_LOST_RUN),
        ),
    )


@cache
def _lease_expired(charged: bool) -> TransitionTemplate:
    return template(
        "lease_expired",
        ("token", "error", "failure", "crash_loop", "last"),
        *_lost(("past", "lease"), ("eq", "token", Param("token")), charged=charged),
    )


_CRASH = template(
    "crash",
    ("token", "error", "failure", "crash_loop", "last", *REPORT),
    *_lost(HOLDS_TOKEN, report=REPORT_OPS),
)
_EXPIRE = template(
    "expire",
    ("error", "failure"),
    branch(
        (PENDING,),
        FAILED,
        guards=(("past", "not_after"),),
        ops=(*SET_FAILURE, *END_JOB, *END_WAIT),
        event="failed",
        emit=("error",),
    ),
)
_MARK_STALE = template(
    "mark_stale",
    ("error", "failure", "reason"),
    branch((RUNNING,), FAILED, guards=(("past", "stale"), ("eq", "on_stale", Const("fail"))), ops=(*SET_FAILURE, *END_JOB),
          event="failed", emit=("error",)),
    branch(ACTIVE, guards=(("past", "stale"), ("ne", "run_by", Const("external"))), ops=(("set", "stalled", Param("reason")), ("clear", "stale")),
          event="stalled", keep="list", emit=("stalled",)),
)  # fmt: skip


def plan_lease_expired(
    operation_id: str, *, error: str, failure: str, crash_loop: str, crashes_left: int | None, token: str | None = None
) -> Change:
    """Recover a job whose lease, with this token, expired: retry it, or fail it.

    Without `token` it is any lease. A request that arrives late may otherwise find the expired lease of a later run.
    `crashes_left` is the number of earlier crashes at which the budget is spent. None: several runs of one process
    crashed together, so the crash is not charged but counted in `suspect`.
    """
    last = None if crashes_left is None else str(crashes_left)
    return bind(
        _lease_expired(last is not None),
        operation_id,
        token=token,
        error=error,
        failure=failure,
        crash_loop=crash_loop,
        last=last,
    )


def plan_crash(
    operation_id: str, token: str, *, error: str, failure: str, crash_loop: str, last: int, report: Mapping[str, str]
) -> Change:
    """Recover a run whose child process died, as seen by its parent; charged to the crash budget."""
    return bind(
        _CRASH, operation_id, token=token, error=error, failure=failure, crash_loop=crash_loop, last=str(last), **report
    )


def plan_expire(operation_id: str, *, error: str, failure: str) -> Change:
    """Fail a pending job whose start deadline has passed."""
    return bind(_EXPIRE, operation_id, error=error, failure=failure)


def plan_mark_stale(operation_id: str, *, error: str, failure: str, reason: str) -> Change:
    """Flag a manual job without updates for too long, or fail it if it was created with on_stale="fail"."""
    return bind(_MARK_STALE, operation_id, error=error, failure=failure, reason=reason)
