"""How a job comes to be, and how a run of it starts. Knows no store."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from milepost.core.change import Change, Guard, Op
from milepost.core.lifecycle.table import (
    ACTIVE,
    ATTEMPT,
    CANCELLED,
    CLEARS_END,
    FAILED,
    NEWEST,
    NONE,
    PENDING,
    RUNNING,
    Template,
    case,
    fill,
    template,
)


@cache
def _creates(names: tuple[str, ...], target: str, is_handed: bool = False) -> Template:
    sets: tuple[Op, ...] = tuple(("set", name, f"${name}") for name in names)
    running = target == RUNNING
    start: tuple[Op, ...] = (("take", "$nonce", "$lease"), ("once", "started")) if running else ()
    free: tuple[Guard, ...] = (("free",),) if running else ()
    if "hand_over" in names:
        sets += (("stamp", "stale", "$again" if is_handed else ".hand_over"), ("set", "stale", ".not_before"))
    # An ended job of track() is taken up again by its key, unless it has completed; see plan_reopen.
    holds = (*ACTIVE, FAILED, CANCELLED) if running else ACTIVE
    return template(
        "create",
        (*names, "nonce", "lease", *(("again",) if is_handed else ())),
        case(
            (NONE,),
            target,
            guards=(("unique", " ".join(holds)), *free),
            ops=(*sets, ("set", "progress", "=0"), ("stamp", "created"), *start),
            event="created" if target == PENDING else "running",
            emit=("worker", "attempt"),
        ),
    )


def plan_create(fields: Mapping[str, str], op: str, again: int | None = None) -> Change:
    """A record comes to be, pending: `fields` besides those that the store stamps; the id and the unique key free.

    `again`: who records it is about to hand it to its engine; another may after so many microseconds.
    """
    shape = _creates(tuple(fields), PENDING, again is not None).shape
    values = (*fields.values(), None, None)
    return Change(shape, values if again is None else (*values, str(again)), op, fields.get("unique_key"))


def plan_track(fields: Mapping[str, str], op: str, *, nonce: str, lease: int) -> Change:
    """A record comes to be, running under a lease of `lease` microseconds; refused while the id or key is stopping."""
    shape = _creates(tuple(fields), RUNNING).shape
    return Change(shape, (*fields.values(), nonce, str(lease)), op, fields.get("unique_key"))


STARTS: tuple[Op, ...] = (
    ("take", "$nonce", "$lease"),
    ("set", "worker", "$worker"),
    ("once", "started"),
    ("set", "progress", "=0"),
    *(("clear", name) for name in ("queue", "stages", "item_counts", "eta", "stalled", "stale", "error", "failure")),
)
START_EMIT = ("progress", "attempt", "worker")

_START = template(
    "start",
    ("nonce", "lease", "worker"),
    case(
        (PENDING,),
        RUNNING,
        guards=(("has", "queue"), ("free",), ("due", "not_before"), ("ahead", "not_after")),
        ops=(*STARTS, ("add", "attempt", "=1")),
        event="running",
        emit=START_EMIT,
    ),
)

_HAND_OVER = template(
    "deliver",
    ("nonce", "lease", "worker"),
    case(
        (PENDING,),
        RUNNING,
        guards=(("eq", "driver", "=engine"), ("free",), ("due", "not_before"), ("ahead", "not_after")),
        ops=(*STARTS, ("add", "attempt", "=1")),
        event="running",
        emit=START_EMIT,
    ),
)

_ADOPT = template(
    "adopt",
    ("nonce", "lease", "worker"),
    case(
        (PENDING,),
        RUNNING,
        guards=(("eq", "driver", "=caller"), ("free",)),
        ops=(*STARTS, ("set", "driver", "=track"), ("add", "attempt", "=1")),
        event="running",
        emit=START_EMIT,
    ),
)

_REOPEN = template(
    "reopen",
    ("nonce", "lease", "worker", "failure", "dead"),
    case(
        (FAILED, CANCELLED),
        RUNNING,
        guards=(("eq", "driver", "=track"), ("free",), NEWEST),
        ops=(*CLEARS_END, *STARTS, ("add", "attempt", "=1")),
        event="running",
        emit=START_EMIT,
    ),
    *(
        case(
            (RUNNING,),
            guards=(("eq", "driver", "=track"), owner_is_gone, ("free",)),
            ops=(("clear", "started"), *ATTEMPT, *STARTS, ("add", "crashes", "=1")),
            event="running",
            emit=START_EMIT,
        )
        for owner_is_gone in (("past", "lease"), ("token", "$dead"))
    ),
)


def plan_start(op: str, *, nonce: str, lease: int, worker: str) -> Change:
    """A worker starts a claimable job: it takes a new token, and the attempt is charged."""
    return fill(_START, op, nonce=nonce, lease=str(lease), worker=worker)


def plan_deliver(op: str, *, nonce: str, lease: int, worker: str) -> Change:
    """An engine's worker starts the job that its engine has delivered."""
    return fill(_HAND_OVER, op, nonce=nonce, lease=str(lease), worker=worker)


def plan_adopt(op: str, *, nonce: str, lease: int, worker: str) -> Change:
    """`track(job_id=...)` takes a pending job of its caller."""
    return fill(_ADOPT, op, nonce=nonce, lease=str(lease), worker=worker)


def plan_reopen(op: str, *, nonce: str, lease: int, worker: str, failure: str, dead: str | None = None) -> Change:
    """`track(key=...)` takes up an ended job of that key, or a running one whose lease has run out, or whose token is
    `dead`: the caller knows that the process which holds it has ended."""
    return fill(_REOPEN, op, nonce=nonce, lease=str(lease), worker=worker, failure=failure, dead=dead or "-")
