"""What callers ask of a job: update, cancel, delete, retry, and the receipt of a stop. Knows no store."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from milepost.core.change import Change, Guard, Op
from milepost.core.defaults import STALE_AFTER
from milepost.core.lifecycle.table import (
    ACTIVE,
    ANY,
    BACK_TO_PENDING,
    CANCELLED,
    CLEARS_END,
    COMPLETED,
    ENDS,
    FAILED,
    LEASE_ENDS,
    NEWEST,
    NONE,
    PENDING,
    REPORT,
    REPORT_OPS,
    RUNNING,
    STOP,
    STOP_ASKED,
    TOKEN,
    Template,
    case,
    fill,
    template,
)

_RETRY = template(
    "retry",
    (),
    case(
        (FAILED, CANCELLED),
        PENDING,
        guards=(("ne", "driver", "=caller"), ("ne", "driver", "=track"), NEWEST),
        ops=(
            *CLEARS_END,
            *BACK_TO_PENDING,
            ("clear", "not_after"),
            ("clear", "not_before"),
            ("sum", "max_attempts", ".attempt", ".budget"),
            ("sum", "max_crashes", ".crashes", "=3"),
        ),
        event="retrying",
    ),
)


_QUIET = str(int(STALE_AFTER * 1_000_000))
_UPDATE_NAMES = ("message", "progress", "error", "result", "quiet")


@cache
def _updates(target: str) -> Template:
    mine: Guard = ("eq", "driver", "=caller")
    sets: tuple[Op, ...] = (*_CANCEL_SETS, ("clear", "stalled"))
    alive: tuple[Op, ...] = (("stamp", "stale", "$quiet"), ("stamp", "stale", ".stale_after"))
    emit = ("progress", "message", "error")
    stays = case((RUNNING,), guards=(mine,), ops=(*sets, *alive), event="progress", keep="feed", emit=emit)
    if not target or target == PENDING:
        waits = case((PENDING,), guards=(mine,), ops=sets, event="progress", keep="feed", emit=emit)
        cases = (waits,) if target else (stays, waits)
    elif target == RUNNING:
        start: tuple[Op, ...] = (("once", "started"), ("add", "attempt", "=1"), *sets, *alive)
        cases = (case((PENDING,), RUNNING, guards=(mine,), ops=start, event="running", emit=emit), stays)
    else:
        full: tuple[Op, ...] = (("set", "progress", "=1"),) if target == COMPLETED else ()
        ends: tuple[Op, ...] = (
            ("once", "started"),
            *sets,
            *full,
            *ENDS,
            ("clear", "stale_after"),
            ("clear", "on_stale"),
        )
        cases = (case(ACTIVE, target, guards=(mine,), ops=ends, event=target, emit=emit),)
    return template("update", _UPDATE_NAMES, *cases)


def plan_retry(op: str) -> Change:
    """An explicit retry: one fresh budget; the history of attempts and the checkpoint stay."""
    return fill(_RETRY, op)


def plan_update(
    op: str,
    status: str | None,
    *,
    progress: str | None = None,
    message: str | None = None,
    error: str | None = None,
    result: str | None = None,
) -> Change:
    """A caller writes its own job, as in the original design; cancel has a plan of its own."""
    return Change(_updates(status or "").shape, (message, progress, error, result, _QUIET), op)  # as _UPDATE_NAMES


_CANCEL_NAMES = ("by", "why", "message", "progress", "error", "result")
_CANCEL_SETS: tuple[Op, ...] = (
    ("set", "message", "$message"),
    ("max", "progress", "$progress"),
    ("set", "error", "$error"),
    ("set", "result", "$result"),
)
_CANCEL_EMIT = ("progress", "message", "stop_by", "stop_why", "stop_how", "stop_confirmed")


def _stopped(how: str, confirmed: str) -> tuple[Op, ...]:
    seen: tuple[Op, ...] = (("stamp", "stopped"),) if confirmed == "1" else ()
    return (*seen, ("set", "stop_how", f"={how}"), ("set", "stop_confirmed", f"={confirmed}"))


_CANCEL = template(
    "cancel",
    _CANCEL_NAMES,
    *(
        case(
            (source,),
            CANCELLED,
            guards=guards,
            ops=(*_CANCEL_SETS, *ops, *ENDS),
            event="cancelled",
            emit=_CANCEL_EMIT,
        )
        for source, guards, ops in (
            (RUNNING, (("has", "token"),), STOP),
            (RUNNING, (), (*STOP, *_stopped("not supervised", "0"))),
            # It waits for its last run to stop: the receipt of that run is the answer to this cancel too.
            (PENDING, (("stopping", ".stop_token"),), tuple(op for op in STOP_ASKED if op[1] != "stop_token")),
            (PENDING, (), (*STOP, *_stopped("never started", "1"))),
        )
    ),
)
_CANCEL_OWN = template(
    "cancel_own",
    ("token", "by", "why", *REPORT),
    case(
        (RUNNING,),
        CANCELLED,
        guards=(TOKEN,),
        ops=(
            *REPORT_OPS,
            *STOP_ASKED,
            *LEASE_ENDS,
            *_stopped("cooperative", "1"),
            *ENDS,
        ),
        event="cancelled",
        emit=_CANCEL_EMIT,
    ),
)
_DELETE = template(
    "delete",
    (),
    case(ANY, ops=(("stop",), ("remove",)), event="deleted"),
)


@cache
def _receipts(overdue: bool, seen: bool) -> Template:
    lease: Guard = ("overdue" if overdue else "stopping", "$token")
    tells: tuple[Op, ...] = (
        *((("stamp", "stopped"),) if seen else ()),
        ("set", "stop_how", "$how"),
        ("set", "stop_confirmed", "$confirmed"),
        ("set", "late_result", "$late_result"),
    )
    mine: Guard = ("eq", "stop_token", "$token")
    emit = ("stop_how", "stop_confirmed")
    told = case(ANY, guards=(lease, mine), ops=(("drop",), *tells), event="receipt", emit=emit)
    gone = case((NONE, *ANY), guards=(lease,), ops=(("drop",),))
    late = case(ANY, guards=(mine, ("eq", "stop_how", "=lease ran out")), ops=tells, event="receipt", emit=emit)
    return template("receipt", ("token", "how", "confirmed", "late_result"), told, gone, *((late,) if seen else ()))


def plan_cancel(
    op: str,
    *,
    by: str | None = None,
    why: str | None = None,
    message: str | None = None,
    progress: str | None = None,
    error: str | None = None,
    result: str | None = None,
) -> Change:
    """Cancel: final at once. A run that is under way gets a stopping lease, and its receipt comes later."""
    return fill(_CANCEL, op, by=by, why=why, message=message, progress=progress, error=error, result=result)


def plan_cancel_own(op: str, token: str, report: Mapping[str, str], *, by: str, why: str) -> Change:
    """The run's own code has stopped for a cancel of its own, such as Ctrl-C."""
    return fill(_CANCEL_OWN, op, token=token, by=by, why=why, **report)


def plan_delete(op: str) -> Change:
    """The record goes; a running job is cancelled in the same step."""
    return fill(_DELETE, op)


def plan_receipt(op: str, token: str, how: str, *, confirmed: bool, late_result: str | None = None) -> Change:
    """The runner of a stopping lease tells how its code stopped; accepted once, late after the lease ran out too."""
    sure = "1" if confirmed else "0"
    return fill(_receipts(False, confirmed), op, token=token, how=how, confirmed=sure, late_result=late_result)


def plan_run_out(op: str, token: str) -> Change:
    """A stopping lease ran out: the stop stays unconfirmed."""
    return fill(_receipts(True, False), op, token=token, how="lease ran out", confirmed="0")
