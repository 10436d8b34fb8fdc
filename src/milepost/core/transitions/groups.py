"""Let a job that waits for other jobs start, or cancel it because one of them failed."""

from __future__ import annotations

from milepost.core.transitions.cancel import NEVER_STARTED
from milepost.core.transitions.operations import Change, Field
from milepost.core.transitions.table import CANCELLED, END_JOB, PENDING, UNSUCCESSFUL, bind, branch, template

_RELEASE_HELD = template(
    "release_held",
    ("by", "why"),
    branch((PENDING,), guards=(("has", "held"), ("open",)), ops=(("hold", UNSUCCESSFUL),)),
    branch(
        (PENDING,),
        CANCELLED,
        guards=(("has", "held"), ("failed", UNSUCCESSFUL)),
        ops=(
            ("blame", "error", UNSUCCESSFUL),
            *NEVER_STARTED,
            *END_JOB,
        ),
        event="cancelled",
        emit=("error", "stop_by", "stop_reason", "stop_how", "stop_confirmed"),
    ),
    branch(
        (PENDING,),
        guards=(("has", "held"),),
        ops=(("clear", "held"), ("stamp", "stale", Field("dispatch_after"))),
        event="ready",
        emit=("message",),
    ),
)
STILL_HELD = 0
"""The branch of a job that continues to wait."""


def plan_release_held(operation_id: str) -> Change:
    """Let a held job start if no group that it waits for has an open member; cancel it if a member failed.

    Branch STILL_HELD: a group has an open member, and the job waits for that one. Refused unless the job is held.
    """
    return bind(_RELEASE_HELD, operation_id, by="milepost", why="dependency_failed")
