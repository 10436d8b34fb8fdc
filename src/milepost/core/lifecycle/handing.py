"""How a pending job of an engine comes to that engine: due, handed over, or in nobody's reach. Knows no store and no engine.

Such a job has `hand_over` (microseconds after which it is due once it is pending) and, while it waits, `stale`: the moment
at which somebody is to hand it over (again). A start and an end clear it.
"""

from __future__ import annotations

from milepost.core.change import Change, Guard
from milepost.core.lifecycle.table import PENDING, case, fill, template

ENGINES: Guard = ("eq", "driver", "=engine")

_TAKE = template(
    "hand over",
    ("again",),
    case((PENDING,), guards=(ENGINES, ("past", "stale"), ("due", "not_before"), ("free",)), ops=(("stamp", "stale", "$again"),)),
    case((PENDING,), guards=(ENGINES, ("past", "stale"), ("ahead", "not_before")), ops=(("set", "stale", ".not_before"),)),
)  # fmt: skip
_HANDED = template(
    "handed over",
    ("again", "version"),
    case(
        (PENDING,),
        guards=(ENGINES, ("eq", "version", "$version")),
        ops=(("stamp", "stale", "$again"), ("clear", "stalled")),
    ),
)
_STRANDED = template(
    "stranded",
    ("again", "reason"),
    case(
        (PENDING,),
        guards=(ENGINES, ("ne", "stalled", "$reason")),
        ops=(("stamp", "stale", "$again"), ("set", "stalled", "$reason")),
        event="stalled",
        keep="list",
        emit=("stalled",),
    ),
    case((PENDING,), guards=(ENGINES,), ops=(("stamp", "stale", "$again"),)),
)


def plan_hand_over(op: str, again: int) -> Change:
    """Somebody is about to hand over a job that is due; another may after `again` microseconds. The first case: it is
    theirs. The second: it may not start yet, and is looked at again when it may."""
    return fill(_TAKE, op, again=str(again))


def plan_handed(op: str, again: int, version: int | None = None) -> Change:
    """The engine has it; after `again` microseconds without a start its message counts as lost. `version` is that of the
    record whose message was sent: it may have run since, and wait for its next attempt."""
    return fill(_HANDED, op, again=str(again), version=None if version is None else str(version))


def plan_stranded(op: str, again: int, reason: str) -> Change:
    """It cannot be handed over, and the record says why; to be tried again after `again` microseconds."""
    return fill(_STRANDED, op, again=str(again), reason=reason)
