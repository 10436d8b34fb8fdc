"""Start runs: of claimed, delivered, adopted and resumed jobs."""

from __future__ import annotations

from milepost.core.record import cleared
from milepost.core.transitions.change import Branch, Change, Const, Guard, Operation, Param
from milepost.core.transitions.table import (
    ARCHIVE_FAILURE,
    CANCELLED,
    CLEAR_END,
    END_RUN,
    FAILED,
    IS_NEWEST_OF_KEY,
    LOST_PARENT,
    PENDING,
    RUNNING,
    TransitionTemplate,
    bind,
    branch,
    template,
)

START_RUN: tuple[Operation, ...] = (
    ("take", Param("nonce"), Param("lease")),
    ("set", "worker", Param("worker")),
    ("set", "release", Param("release")),
    ("once", "started"),
    ("set", "progress", Const("0")),
    *(("clear", name) for name in cleared("start")),
)
"""`not_after` limits the first start only, so a start clears it: no later attempt can expire."""
START_EMIT = ("progress", "attempt", "worker")
_CHARGE_ATTEMPT: Operation = ("add", "attempt", Const("1"))


_START_SEGMENT: tuple[Operation, ...] = (
    *(operation for operation in START_RUN if operation[0] != "clear" and operation[1] != "progress"),
    *(("clear", name) for name in ("ready", "stale", *cleared("wait"))),
)
"""Continue the attempt of a suspended job: its number, start, progress, stages and counts stay."""


def _starts(
    name: str, *guards: Guard, ops: tuple[Operation, ...] = (), segments: tuple[Branch, ...] = ()
) -> TransitionTemplate:
    """Return the start of a pending job under these guards; `segments` are the branches for suspended ones."""
    return template(
        name,
        ("nonce", "lease", "worker", "release"),
        *segments,
        branch(
            (PENDING,),
            RUNNING,
            guards=guards,
            ops=(*START_RUN, *ops, _CHARGE_ATTEMPT),
            event="running",
            emit=START_EMIT,
        ),
    )


def _starts_segment(*guards: Guard) -> Branch:
    return branch(
        (PENDING,),
        RUNNING,
        guards=(("has", "suspended"), *guards, ("startable",)),
        ops=_START_SEGMENT,
        event="running",
        keep="list",
        emit=START_EMIT,
    )


_START = _starts(
    "start",
    ("has", "ready"),
    ("free",),
    ("startable",),
    ("ahead", "not_after"),
    ("parented", LOST_PARENT),
    segments=(_starts_segment(("has", "ready"), ("free",), ("parented", LOST_PARENT)),),
)
_BY_TASK_QUEUE: Guard = ("eq", "run_by", Const("external"))
_DELIVER = _starts(
    "deliver",
    _BY_TASK_QUEUE,
    ("free",),
    ("startable",),
    ("ahead", "not_after"),
    ("parented", LOST_PARENT),
    segments=(_starts_segment(_BY_TASK_QUEUE, ("parented", LOST_PARENT)),),
)
_ADOPT = _starts("adopt", ("eq", "run_by", Const("manual")), ("free",), ops=(("set", "run_by", Const("track")),))

_RESUME = template(
    "resume",
    ("nonce", "lease", "worker", "release", "failure", "dead", "version", "token"),
    branch(
        (FAILED, CANCELLED),
        RUNNING,
        guards=(("eq", "run_by", Const("track")), ("eq", "version", Param("version")), ("free",), IS_NEWEST_OF_KEY),
        ops=(*CLEAR_END, *START_RUN, _CHARGE_ATTEMPT),
        event="running",
        emit=START_EMIT,
    ),
    *(
        branch(
            (RUNNING,),
            guards=(("eq", "run_by", Const("track")), *owner_is_gone, ("free",)),
            ops=(*END_RUN, ("clear", "started"), *ARCHIVE_FAILURE, *START_RUN, ("add", "crashes", Const("1"))),
            event="running",
            emit=START_EMIT,
        )
        for owner_is_gone in ((("past", "lease"), ("eq", "token", Param("token"))), (("token", Param("dead")),))
    ),
)


def plan_start(operation_id: str, *, nonce: str, lease: int, worker: str, release: str | None = None) -> Change:
    """Start a claimable job on a worker with a new token and charge the attempt. `release` is that of the code."""
    return bind(_START, operation_id, nonce=nonce, lease=str(lease), worker=worker, release=release)


def plan_deliver(operation_id: str, *, nonce: str, lease: int, worker: str, release: str | None = None) -> Change:
    """Start a job that its task queue has delivered to a worker."""
    return bind(_DELIVER, operation_id, nonce=nonce, lease=str(lease), worker=worker, release=release)


def plan_adopt(operation_id: str, *, nonce: str, lease: int, worker: str, release: str | None = None) -> Change:
    """Start a pending manual job in `track(job_id=...)`."""
    return bind(_ADOPT, operation_id, nonce=nonce, lease=str(lease), worker=worker, release=release)


def plan_resume(
    operation_id: str,
    *,
    nonce: str,
    lease: int,
    worker: str,
    failure: str,
    dead: str | None = None,
    release: str | None = None,
    version: str | None = None,
    token: str | None = None,
) -> Change:
    """Resume the job of a key in `track(unique_key=...)`: an ended one, or a running one whose lease expired or whose
    token is `dead` because the caller knows that its process has ended.

    `version` and `token` (empty: none) are those that the caller has seen: a late duplicate is refused when the job has
    run since.
    """
    return bind(
        _RESUME,
        operation_id,
        nonce=nonce,
        lease=str(lease),
        worker=worker,
        release=release,
        failure=failure,
        dead=dead or "-",
        version=version,
        token=token,
    )
