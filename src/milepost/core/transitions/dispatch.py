"""Dispatch pending jobs to external task queues.

Such a job has `dispatch_after` (microseconds from pending until it is due for dispatch) and, while it waits, `stale`: the
time at which it is to be dispatched (again). A start and an end clear it.
"""

from __future__ import annotations

from milepost.core.transitions.change import Change, Const, Field, Guard, Param
from milepost.core.transitions.table import END_JOB, END_WAIT, FAILED, PENDING, SET_FAILURE, bind, branch, template

RUN_BY_TASK_QUEUE: Guard = ("eq", "run_by", Const("external"))

_DISPATCH = template(
    "dispatch",
    ("again",),
    branch((PENDING,), guards=(RUN_BY_TASK_QUEUE, ("past", "stale"), ("startable",), ("free",)), ops=(("stamp", "stale", Param("again")),)),
    branch((PENDING,), guards=(RUN_BY_TASK_QUEUE, ("past", "stale"), ("has", "wake_at")), ops=(("set", "stale", Field("wake_at")),)),
    # What releases it makes it due again.
    branch((PENDING,), guards=(RUN_BY_TASK_QUEUE, ("past", "stale"), ("has", "held")), ops=(("clear", "stale"), ("stamp", "stale", Field("cycle_check")))),
    branch((PENDING,), guards=(RUN_BY_TASK_QUEUE, ("past", "stale"), ("ahead", "not_before")), ops=(("set", "stale", Field("not_before")),)),
)  # fmt: skip
_DISPATCHED = template(
    "dispatched",
    ("again", "version", "notes", "queue_message", "delay"),
    branch(
        (PENDING,),
        # A note of the same reason as before has no event, so the version does not tell that the message was used up.
        guards=(RUN_BY_TASK_QUEUE, ("eq", "version", Param("version")), ("eq", "update_ops", Param("notes"))),
        ops=(
            ("stamp", "stale", Param("again")),
            ("set", "queue_message", Param("queue_message")),
            ("stamp", "message_at", Param("delay")),
            ("clear", "stalled"),
        ),
    ),
)
_UNDISPATCHABLE = template(
    "undispatchable",
    ("again", "reason"),
    branch(
        (PENDING,),
        guards=(RUN_BY_TASK_QUEUE, ("ne", "stalled", Param("reason"))),
        ops=(("stamp", "stale", Param("again")), ("set", "stalled", Param("reason"))),
        event="stalled",
        keep="list",
        emit=("stalled",),
    ),
    branch((PENDING,), guards=(RUN_BY_TASK_QUEUE,), ops=(("stamp", "stale", Param("again")),)),
    # As the last operation it would soon be displaced: the next dispatch follows after seconds, and its note clears the reason.
    retention="updates",
)
_REJECTED = template(
    "rejected",
    ("error", "failure"),
    branch(
        (PENDING,),
        FAILED,
        guards=(RUN_BY_TASK_QUEUE,),
        ops=(*SET_FAILURE, *END_JOB, *END_WAIT),
        event="failed",
        emit=("error",),
    ),
)


def plan_dispatch(operation_id: str, again: int) -> Change:
    """Reserve a job that is due for dispatch for `again` microseconds.

    Branch 0: reserved. Others: it may not start yet, and is due again when it may.
    """
    return bind(_DISPATCH, operation_id, again=str(again))


def plan_dispatched(
    operation_id: str,
    again: int,
    version: int | None = None,
    notes: str | None = None,
    queue_message: str | None = None,
    delay: int | None = None,
) -> Change:
    """Record that the task queue has the message; it counts as lost after `again` microseconds without a start.

    `version` is that of the record when the message was sent: the job may have run since and wait for its next attempt.
    `notes` is what its `update_ops` was then: a delivery that could not start the job may have noted so since.
    `queue_message` replaces the stored message for the next dispatch. The task queue delivers it after `delay` microseconds.
    """
    asked = None if version is None else str(version)
    wait = None if delay is None else str(delay)
    values = {"version": asked, "notes": notes, "queue_message": queue_message, "delay": wait}
    return bind(_DISPATCHED, operation_id, again=str(again), **values)


def plan_undispatchable(operation_id: str, again: int, reason: str) -> Change:
    """Record why a job cannot be dispatched; it is due again after `again` microseconds."""
    return bind(_UNDISPATCHABLE, operation_id, again=str(again), reason=reason)


def plan_rejected(operation_id: str, *, error: str, failure: str) -> Change:
    """Fail a pending job that its task queue will never accept, for example because of its parameters."""
    return bind(_REJECTED, operation_id, error=error, failure=failure)
