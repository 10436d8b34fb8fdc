"""What becomes of a job when nobody speaks for it: lost leases, crashes, missed starts, silence. Knows no store."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from milepost.core.change import Change, Guard, Op
from milepost.core.lifecycle.table import (
    ACTIVE,
    ATTEMPT,
    BACK_TO_PENDING,
    ENDS,
    FAILED,
    FAILURE,
    LEASE_ENDS,
    PENDING,
    REPORT,
    REPORT_OPS,
    RUNNING,
    TOKEN,
    Template,
    case,
    fill,
    template,
)


@cache
def _loses(charged: bool) -> Template:
    late: Guard = ("past", "lease")
    lost: tuple[Op, ...] = (*FAILURE, *LEASE_ENDS, *ENDS)
    back: tuple[Op, ...] = (*LEASE_ENDS, *BACK_TO_PENDING, ("add", "attempt", "=-1"))
    fails = [
        case(
            (RUNNING,),
            FAILED,
            guards=(late, ("eq", "driver", "=track")),
            ops=lost,
            event="failed",
            emit=("error",),
        ),
        case(
            (RUNNING,),
            FAILED,
            guards=(late, ("eq", "on_lost", "=fail")),
            ops=lost,
            event="failed",
            emit=("error",),
        ),
    ]
    crash: tuple[Op, ...] = (
        *(o for o in FAILURE if o[1] != "failure"),
        ("set", "failure", "$crash_loop"),
        *LEASE_ENDS,
        *ENDS,
        ("add", "crashes", "=1"),
        ("add", "attempt", "=-1"),
    )
    if charged:
        fails += [
            case((RUNNING,), FAILED, guards=(late, ("ge", "crashes", "$last")), ops=crash, event="failed", emit=("error",)),
            case((RUNNING,), PENDING, guards=(late,), ops=(*FAILURE, ("add", "crashes", "=1"), *back),
                  event="retrying", emit=("error",)),
        ]  # fmt: skip
    else:
        fails += [
            case((RUNNING,), PENDING, guards=(late,), ops=(*back, ("set", "suspect", "=1")), event="retrying",
                  emit=("suspect",)),
        ]  # fmt: skip
    return template("lost", ("error", "failure", "crash_loop", "last"), *fails)


_CRASH = template(
    "crash",
    ("token", "error", "failure", "crash_loop", "last", *REPORT),
    *(case((RUNNING,), FAILED, guards=(TOKEN, last), ops=(*REPORT_OPS, *FAILURE, *LEASE_ENDS, *ENDS),
            event="failed", emit=("error",))
      for last in (("eq", "driver", "=track"), ("eq", "on_lost", "=fail"))),
    case((RUNNING,), FAILED, guards=(TOKEN, ("ge", "crashes", "$last")),
          ops=(*REPORT_OPS, ("set", "error", "$error"), *ATTEMPT, ("set", "failure", "$crash_loop"),
               *LEASE_ENDS, *ENDS, ("add", "crashes", "=1"), ("add", "attempt", "=-1")),
          event="failed", emit=("error",)),
    case((RUNNING,), PENDING, guards=(TOKEN,),
          ops=(*REPORT_OPS, *FAILURE, ("add", "crashes", "=1"), *LEASE_ENDS, *BACK_TO_PENDING, ("add", "attempt", "=-1")),
          event="retrying", emit=("error",)),
)  # fmt: skip
_EXPIRE = template(
    "expire",
    ("error", "failure"),
    case(
        (PENDING,),
        FAILED,
        guards=(("past", "not_after"),),
        ops=(*FAILURE, *ENDS),
        event="failed",
        emit=("error",),
    ),
)
_QUIET = template(
    "quiet",
    ("error", "failure", "reason"),
    case((RUNNING,), FAILED, guards=(("past", "stale"), ("eq", "on_stale", "=fail")), ops=(*FAILURE, *ENDS),
          event="failed", emit=("error",)),
    case(ACTIVE, guards=(("past", "stale"), ("ne", "driver", "=engine")), ops=(("set", "stalled", "$reason"), ("clear", "stale")),
          event="stalled", keep="list", emit=("stalled",)),
)  # fmt: skip


def plan_lost(op: str, *, error: str, failure: str, crash_loop: str, crashes_left: int | None) -> Change:
    """A lease ran out. `crashes_left` None: uncharged, because the crash took several runs of a process with it;
    otherwise the number of crashes before this one at which the budget is spent."""
    last = None if crashes_left is None else str(crashes_left)
    return fill(_loses(last is not None), op, error=error, failure=failure, crash_loop=crash_loop, last=last)


def plan_crash(
    op: str, token: str, *, error: str, failure: str, crash_loop: str, last: int, report: Mapping[str, str]
) -> Change:
    """The child process of a run died, seen by its parent: charged to the crash budget."""
    return fill(_CRASH, op, token=token, error=error, failure=failure, crash_loop=crash_loop, last=str(last), **report)


def plan_expire(op: str, *, error: str, failure: str) -> Change:
    """The last moment to start a pending job has passed."""
    return fill(_EXPIRE, op, error=error, failure=failure)


def plan_quiet(op: str, *, error: str, failure: str, reason: str) -> Change:
    """A caller's job has said nothing for too long: flagged, or failed when it was created with on_stale="fail"."""
    return fill(_QUIET, op, error=error, failure=failure, reason=reason)
