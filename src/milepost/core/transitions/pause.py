"""Pause one job until a user resumes it.

A paused job is held. What it waited for before is kept beside, and holds it again after the resume. The lease of a running
job drains, as after a cancel: no other segment starts before its code has stopped and its last report is written.
"""

from __future__ import annotations

from collections.abc import Mapping

from milepost.core.placement import PAUSED
from milepost.core.record import cleared
from milepost.core.transitions.change import Change, Const, Field, Guard, Operation, Param
from milepost.core.transitions.table import (
    DRAIN_LEASE,
    PENDING,
    REPORT,
    REPORT_OPS,
    RUNNING,
    SUSPEND,
    bind,
    branch,
    template,
)

_IS_PAUSED: Guard = ("eq", "held", Const(PAUSED))
_PAUSE: Operation = ("set", "held", Const(PAUSED))
_PAUSES = template(
    "pause",
    ("by", "why", "wake_at", "wait_groups", "ran", "data"),
    branch(
        (RUNNING,),
        PENDING,
        guards=(("eq", "run_by", Const("worker")),),
        ops=(*DRAIN_LEASE, *SUSPEND, _PAUSE),
        event="paused",
        keep="list",
        data=Param("data"),
    ),
    branch(
        (PENDING,),
        guards=(("ne", "run_by", Const("manual")), ("ne", "held", Const(PAUSED))),
        ops=(
            ("set", "held_before", Field("held")),
            ("set", "wake_before", Field("wake_at")),
            ("clear", "wake_at"),
            ("clear", "stale"),
            _PAUSE,
        ),
        event="paused",
        keep="list",
        data=Param("data"),
    ),
    retention="callers",
)
_RESUME = template(
    "resume_paused",
    ("data",),
    branch(
        (PENDING,),
        guards=(_IS_PAUSED,),
        ops=(
            ("clear", "held"),
            ("set", "held", Field("held_before")),
            ("set", "wake_at", Field("wake_before")),
            ("clear", "held_before"),
            ("clear", "wake_before"),
            ("stamp", "stale", Field("cycle_check")),
            ("stamp", "stale", Field("dispatch_after")),
        ),
        event="resumed",
        keep="list",
        data=Param("data"),
    ),
    retention="callers",
)
_STOPPED = template(
    "stopped_for_pause",
    ("token", "ran", "how", *REPORT),
    branch(
        (PENDING,),
        guards=(("stopping", Param("token")), ("has", "suspended")),
        ops=(
            *REPORT_OPS,
            *(("clear", name) for name in REPORT if name in cleared("requeue")),
            ("add", "ran", Param("ran")),
            ("drop",),
            ("stamp", "stopped"),
            ("set", "stop_how", Param("how")),
            ("set", "stop_confirmed", Const("1")),
        ),
        event="receipt",
        emit=("stop_how", "stop_confirmed"),
    ),
)


def plan_pause(operation_id: str, *, by: str | None, data: str) -> Change:
    """Suspend a job until `plan_resume_paused`. Of a running one the lease drains. `data` is what the event says."""
    return bind(_PAUSES, operation_id, by=by, why="paused", data=data)


def plan_resume_paused(operation_id: str, *, data: str) -> Change:
    """Let a paused job continue, or wait again for what it waited for before."""
    return bind(_RESUME, operation_id, data=data)


def plan_stopped_for_pause(operation_id: str, token: str, report: Mapping[str, str], *, ran: int, how: str) -> Change:
    """Write the last report of a run whose code has returned because its job was paused. `ran` is in microseconds."""
    return bind(_STOPPED, operation_id, token=token, ran=str(ran), how=how, **report)
