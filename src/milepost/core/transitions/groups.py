"""Let a job that waits for other jobs start, or cancel it because one of them failed; open and close batches, cancel orphans."""

from __future__ import annotations

from milepost.core.placement import BATCH
from milepost.core.transitions.cancel import CANCELS_OF_WORKER_JOBS, NEVER_STARTED
from milepost.core.transitions.change import Change, Const, Field, Guard, Operation, Param
from milepost.core.transitions.table import (
    CANCELLED,
    COMPLETED,
    END_JOB,
    END_WAIT,
    FAILED,
    LOST_PARENT,
    PENDING,
    RUNNING,
    UNSUCCESSFUL,
    bind,
    branch,
    template,
)

_ALL_HAVE_ENDED: tuple[Operation, ...] = (("set", "progress", Const("1")), ("clear", "progress_known"))
"""The progress of a batch is that of its members."""
_RELEASE_HELD = template(
    "release_held",
    ("by", "why"),
    branch((PENDING, RUNNING), guards=(("has", "held"), ("open",)), ops=(("hold", UNSUCCESSFUL),)),
    branch(
        (PENDING,),
        CANCELLED,
        guards=(("has", "held"), ("failed", UNSUCCESSFUL)),
        ops=(
            ("blame", "error", "failed_member", UNSUCCESSFUL),
            *NEVER_STARTED,
            *END_JOB,
        ),
        event="cancelled",
        emit=("error", "stop_by", "stop_reason", "stop_how", "stop_confirmed"),
    ),
    branch(
        (PENDING,),
        guards=(("has", "held"),),
        ops=(
            *(("clear", name) for name in ("held", "stale", "stalled")),
            ("stamp", "stale", Field("dispatch_after")),
        ),
        event="ready",
        emit=("message",),
    ),
    *(
        branch(
            (RUNNING,),
            target,
            guards=(("has", "held"), *guards),
            ops=(*ops, *_ALL_HAVE_ENDED, *END_JOB, *END_WAIT),
            event=target,
            emit=("progress", "error"),
        )
        for target, guards, ops in (
            (FAILED, (("failed", UNSUCCESSFUL),), (("blame", "error", "failed_member", UNSUCCESSFUL),)),
            (COMPLETED, (), ()),
        )
    ),
)
_IS_BATCH: tuple[Guard, ...] = (("eq", "run_by", Const("manual")), ("eq", "type", Const(BATCH)))
_IS_OPEN_BATCH: tuple[Guard, ...] = (*_IS_BATCH, ("lacks", "closed"))
_BATCH_IS_ALIVE: tuple[Operation, ...] = (("clear", "stalled"), ("stamp", "stale", Field("stale_after")))
_PROGRESS_IS_OF_MEMBERS: Operation = ("set", "progress_known", Const("0"))
_OPEN_BATCH = template(
    "open_batch",
    (),
    branch(
        (PENDING,),
        RUNNING,
        guards=_IS_BATCH,
        ops=(("once", "started"), ("add", "attempt", Const("1")), *END_WAIT, _PROGRESS_IS_OF_MEMBERS, *_BATCH_IS_ALIVE),
        event="running",
        emit=("message",),
    ),
    branch((RUNNING,), guards=_IS_OPEN_BATCH, ops=_BATCH_IS_ALIVE, event="progress", keep="feed", emit=("message",)),
)
_CLOSE_BATCH = template(
    "close_batch",
    ("group", "message"),
    branch(
        (RUNNING,),
        guards=_IS_OPEN_BATCH,
        ops=(
            ("stamp", "closed"),
            ("set", "message", Param("message")),
            ("set", "wait_groups", Param("group")),
            ("hold", UNSUCCESSFUL),
            *(("clear", name) for name in ("stalled", "stale_after", "on_stale")),
        ),
        event="closed",
        keep="life",
        emit=("message",),
    ),
    retention="callers",
)
_CANCEL_ORPHAN = template(
    "cancel_orphan",
    ("by", "why"),
    *(
        branch(
            (source,),
            CANCELLED,
            guards=(*guards, ("orphan", LOST_PARENT)),
            ops=(*ops, *END_JOB),
            event="cancelled",
            emit=("stop_by", "stop_reason", "stop_how", "stop_confirmed"),
        )
        for source, guards, ops in CANCELS_OF_WORKER_JOBS
    ),
)
_CHECK_IS_DUE: tuple[Guard, ...] = (("has", "cycle_check"), ("past", "stale"))
_HELD_CHECK: tuple[Guard, ...] = (*_CHECK_IS_DUE, ("has", "held"))
_CHECK_AGAIN: Operation = ("stamp", "stale", Param("again"))
_FLAG_CYCLE = template(
    "flag_cycle",
    ("again", "reason"),
    branch(
        (PENDING,),
        guards=(*_HELD_CHECK, ("ne", "stalled", Param("reason"))),
        ops=(_CHECK_AGAIN, ("set", "stalled", Param("reason"))),
        event="stalled",
        keep="list",
        emit=("stalled",),
    ),
    branch((PENDING,), guards=_HELD_CHECK, ops=(_CHECK_AGAIN,)),
)
_NO_CYCLE = template(
    "no_cycle",
    ("again",),
    branch(
        (PENDING,),
        guards=(*_HELD_CHECK, ("has", "stalled")),
        ops=(_CHECK_AGAIN, ("clear", "stalled")),
        event="progress",
        keep="feed",
        emit=("message",),
    ),
    branch((PENDING,), guards=_HELD_CHECK, ops=(_CHECK_AGAIN,)),
    branch((PENDING,), guards=_CHECK_IS_DUE, ops=(("clear", "stale"),)),
)
STILL_HELD = 0
"""The branch of a job that continues to wait."""


def plan_open_batch(operation_id: str) -> Change:
    """Start the record of a batch, or continue an open one. Refused for a closed batch and for other records."""
    return bind(_OPEN_BATCH, operation_id)


def plan_close_batch(operation_id: str, group: str, message: str) -> Change:
    """Close an open batch: it admits no members any more, and ends as soon as its group has no open one."""
    return bind(_CLOSE_BATCH, operation_id, group=group, message=message)


def plan_cancel_orphan(operation_id: str) -> Change:
    """Cancel a job that was made by a run, if its parent has failed, was cancelled or has no record."""
    return bind(_CANCEL_ORPHAN, operation_id, by="milepost", why="parent_ended")


def plan_release_held(operation_id: str) -> Change:
    """Let a held job start, or a closed batch end, if no group that it waits for has an open member; cancel it if a member failed.

    Branch STILL_HELD: a group has an open member, and the job waits for that one. Refused unless the job is held.
    """
    return bind(_RELEASE_HELD, operation_id, by="milepost", why="dependency_failed")


def plan_flag_cycle(operation_id: str, again: int, reason: str) -> Change:
    """Flag a held job that waits for itself as stalled; it is checked again after `again` microseconds."""
    return bind(_FLAG_CYCLE, operation_id, again=str(again), reason=reason)


def plan_no_cycle(operation_id: str, again: int) -> Change:
    """Record that no cycle was found of a held job, and check it again after `again` microseconds. One that is not held is not."""
    return bind(_NO_CYCLE, operation_id, again=str(again))
