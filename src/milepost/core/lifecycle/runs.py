"""What a run writes: reports, log lines, checkpoints, and its end. Every change carries the token. Knows no store."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from milepost.core.change import Change, Op
from milepost.core.lifecycle.table import (
    ANY,
    BACK_TO_PENDING,
    COMPLETED,
    ENDS,
    FAILED,
    FAILURE,
    LEASE_ENDS,
    PENDING,
    REPORT,
    REPORT_OPS,
    RUNNING,
    STOP,
    TOKEN,
    Template,
    case,
    fill,
    template,
)

_REPORTS = {
    kind: template(
        kind,
        ("token", *REPORT),
        case(
            (RUNNING,),
            guards=(TOKEN,),
            ops=REPORT_OPS,
            event=kind,
            keep=keep,
            emit=(*REPORT[:3], "eta", "stalled"),
        ),
    )
    for kind, keep in (("progress", "feed"), ("stage", "list"), ("stalled", "list"))
}
_LOG = template(
    "log",
    ("token", "lines"),
    case((RUNNING,), guards=(TOKEN,), event="log", keep="list", data="$lines"),
    case(ANY, guards=(("stopping", "$token"),), event="log", keep="list", data="$lines"),
)
_CHECKPOINT = template(
    "checkpoint",
    ("token", "checkpoint", *REPORT),
    case(
        (RUNNING,),
        guards=(TOKEN,),
        ops=(("set", "checkpoint", "$checkpoint"), ("stamp", "checkpoint_at"), *REPORT_OPS),
        event="checkpoint",
        keep="list",
        emit=("progress", "message"),
    ),
)


def plan_report(op: str, token: str, report: Mapping[str, str], kind: str = "progress") -> Change:
    """A run says how far it is; `kind` is progress, stage or stalled."""
    return fill(_REPORTS[kind], op, token=token, **report)


def plan_log(op: str, token: str, lines: str) -> Change:
    """Log lines of a run (a JSON object with `lines`), accepted under a stopping lease too."""
    return fill(_LOG, op, token=token, lines=lines)


def plan_checkpoint(op: str, token: str, value: str, report: Mapping[str, str]) -> Change:
    """A run records where it could go on."""
    return fill(_CHECKPOINT, op, token=token, checkpoint=value, **report)


NOTHING_LEFT: tuple[Op, ...] = tuple(
    ("clear", name) for name in ("checkpoint", "cursors", "slot", "budget", "max_crashes", "not_before", "not_after")
)
"""What only a later attempt would need."""

_COMPLETE = template(
    "complete",
    ("token", "result", *REPORT),
    case(
        (RUNNING,),
        COMPLETED,
        guards=(TOKEN,),
        ops=(
            *REPORT_OPS,
            ("set", "result", "$result"),
            ("set", "progress", "=1"),
            *LEASE_ENDS,
            *ENDS,
            *NOTHING_LEFT,
        ),
        event="completed",
        emit=("progress", "message"),
    ),
)


@cache
def _fails(retryable: bool, stopping: bool) -> Template:
    ends = STOP if stopping else LEASE_ENDS
    again = case(
        (RUNNING,),
        PENDING,
        guards=(TOKEN, ("lt", "attempt", ".max_attempts"), ("ne", "driver", "=track")),
        ops=(
            *REPORT_OPS,
            *FAILURE,
            *ends,
            *BACK_TO_PENDING,
            ("clear", "suspect"),
            ("stamp", "not_before", "$delay"),
        ),
        event="retrying",
        emit=("error", "attempt", "stop_how"),
    )
    last = case(
        (RUNNING,),
        FAILED,
        guards=(TOKEN,),
        ops=(*REPORT_OPS, *FAILURE, *ends, *ENDS),
        event="failed",
        emit=("error", "progress", "message"),
    )
    names = ("token", "error", "failure", "delay", "by", "why", *REPORT)
    return template("fail", names, *((again, last) if retryable else (last,)))


@cache
def _releases(stopping: bool) -> Template:
    return template(
        "release",
        ("token", "by", "why", *REPORT),
        case(
            (RUNNING,),
            PENDING,
            guards=(TOKEN, ("ne", "driver", "=track")),
            ops=(
                *REPORT_OPS,
                *(STOP if stopping else LEASE_ENDS),
                *BACK_TO_PENDING,
                ("add", "attempt", "=-1"),
            ),
            event="released",
            emit=("message",),
        ),
    )


def plan_complete(op: str, token: str, result: str | None, report: Mapping[str, str]) -> Change:
    """A run has done its work."""
    return fill(_COMPLETE, op, token=token, result=result, **report)


def plan_fail(
    op: str,
    token: str,
    *,
    error: str,
    failure: str,
    report: Mapping[str, str],
    delay: int | None = None,
    stopping: bool = False,
    why: str | None = None,
) -> Change:
    """A run has failed: back to pending after `delay` microseconds while attempts are left, else failed.

    `delay` None means never again. `stopping`: the run's code still goes on, so its lease becomes a stopping one.
    """
    shape = _fails(delay is not None, stopping)
    wait = None if delay is None else str(delay)
    return fill(shape, op, token=token, error=error, failure=failure, delay=wait, by="milepost", why=why, **report)


def plan_release(op: str, token: str, report: Mapping[str, str], *, stopping: bool = False) -> Change:
    """A worker gives a job back at no cost; `stopping`: its code did not stop within the grace time."""
    return fill(_releases(stopping), op, token=token, by="milepost", why="shutdown", **report)
