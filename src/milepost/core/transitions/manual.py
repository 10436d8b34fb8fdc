"""Changes that callers make by hand: retry an ended job, update a manual one."""

from __future__ import annotations

from functools import cache

from milepost.core.defaults import STALE_AFTER
from milepost.core.record import cleared
from milepost.core.transitions.change import Change, Const, Field, Guard, Operation, Param
from milepost.core.transitions.table import (
    ACTIVE,
    CANCELLED,
    CLEAR_END,
    COMPLETED,
    END_JOB,
    END_WAIT,
    FAILED,
    IS_NEWEST_OF_KEY,
    LOST_PARENT,
    PENDING,
    RESET_TO_PENDING,
    RUNNING,
    SET_CALLER_FIELDS,
    UNSUCCESSFUL,
    TransitionTemplate,
    bind,
    branch,
    template,
)

_IS_FOR_WORKERS: tuple[Guard, ...] = (
    ("ne", "run_by", Const("manual")),
    ("ne", "run_by", Const("track")),
    IS_NEWEST_OF_KEY,
)
_RETRY_OPS: tuple[Operation, ...] = (
    *CLEAR_END,
    *RESET_TO_PENDING,
    ("clear", "not_after"),
    ("clear", "not_before"),
    ("sum", "max_attempts", Field("attempt"), Field("budget")),
    ("sum", "max_crashes", Field("crashes"), Const("3")),
)


def _retries(from_start: bool, waits: bool = False) -> TransitionTemplate:
    return template(
        "retry from start" if from_start else "retry, wait" if waits else "retry",
        (),
        branch(
            (FAILED, CANCELLED),
            PENDING,
            guards=(*_IS_FOR_WORKERS, ("parented", LOST_PARENT)),
            ops=(
                *_RETRY_OPS,
                *(("clear", name) for name in cleared("from_start") if from_start),
                *((("add", "restarts", Const("1")),) if from_start else ()),
                *((("hold", UNSUCCESSFUL),) if waits else ()),
            ),
            event="retrying",
        ),
        retention="callers",
    )


_RETRY_CHILD = template(
    "retry_child",
    ("run", "run_token", "parent_attempt"),
    branch(
        (FAILED, CANCELLED),
        PENDING,
        guards=(
            ("leased", Param("run"), Param("run_token")),
            ("ne", "parent_attempt", Param("parent_attempt")),
        ),
        ops=(*_RETRY_OPS, ("set", "parent_attempt", Param("parent_attempt")), ("hold", UNSUCCESSFUL)),
        event="retrying",
    ),
)
_RETRY, _RETRY_FROM_START, _RETRY_WAITING = _retries(False), _retries(True), _retries(False, waits=True)

_QUIET = Const(str(int(STALE_AFTER * 1_000_000)))
_UPDATE_NAMES = ("message", "progress", "error", "result")


@cache
def _updates(target: str) -> TransitionTemplate:
    mine: tuple[Guard, ...] = (("eq", "run_by", Const("manual")),)
    still_mine: tuple[Guard, ...] = (*mine, ("lacks", "closed"))  # only a running batch can be closed
    sets: tuple[Operation, ...] = (*SET_CALLER_FIELDS, ("clear", "stalled"))
    alive: tuple[Operation, ...] = (("stamp", "stale", _QUIET), ("stamp", "stale", Field("stale_after")))
    emit = ("progress", "message", "error")
    stays = branch((RUNNING,), guards=still_mine, ops=(*sets, *alive), event="progress", keep="feed", emit=emit)
    if not target or target == PENDING:
        waits = branch((PENDING,), guards=mine, ops=sets, event="progress", keep="feed", emit=emit)
        branches = (waits,) if target else (stays, waits)
    elif target == RUNNING:
        start: tuple[Operation, ...] = (
            ("once", "started"),
            ("add", "attempt", Const("1")),
            ("clear", "not_after"),
            *END_WAIT,
            *sets,
            *alive,
        )
        branches = (branch((PENDING,), RUNNING, guards=mine, ops=start, event="running", emit=emit), stays)
    else:
        full: tuple[Operation, ...] = (("set", "progress", Const("1")),) if target == COMPLETED else ()
        ends: tuple[Operation, ...] = (
            ("once", "started"),
            *sets,
            *full,
            *END_JOB,
            *END_WAIT,
            ("clear", "stale_after"),
            ("clear", "on_stale"),
        )
        branches = (branch(ACTIVE, target, guards=still_mine, ops=ends, event=target, emit=emit),)
    return template("update", _UPDATE_NAMES, *branches, retention="updates")


def plan_retry(operation_id: str, *, from_start: bool = False, waits: bool = False) -> Change:
    """Return an ended job to pending with one new retry budget; past attempts stay.

    The checkpoint, cursors, state and kept steps stay too, unless `from_start` is set. `waits`: it is held again while a
    group of its `after` has an open member. Refused for a child that could not start: its parent failed, was cancelled or
    has no record.
    """
    return bind(_RETRY_FROM_START if from_start else _RETRY_WAITING if waits else _RETRY, operation_id)


def plan_retry_child(operation_id: str, *, run: tuple[str, str], generation: str) -> Change:
    """Return a child that ended without success to pending, for a later attempt of its parent, under the token of that.

    It is held again while a group of its `after` has an open member.
    """
    run_id, token = run
    return bind(_RETRY_CHILD, operation_id, run=run_id, run_token=token, parent_attempt=generation)


def plan_update(
    operation_id: str,
    status: str | None,
    *,
    progress: str | None = None,
    message: str | None = None,
    error: str | None = None,
    result: str | None = None,
) -> Change:
    """Update a manual job; to cancel it, use `plan_cancel`."""
    return Change(
        _updates(status or "").transition, (message, progress, error, result), operation_id
    )  # as _UPDATE_NAMES
