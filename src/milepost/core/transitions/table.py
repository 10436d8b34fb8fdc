"""The table of legal moves between statuses, and the builders of branches that are checked against it."""

from __future__ import annotations

from typing import NamedTuple

from milepost.core.defaults import ATTEMPTS_BYTES
from milepost.core.record import REPORTED, REPORTED_IN_EVENTS, cleared
from milepost.core.transitions.change import (
    Branch,
    Change,
    Const,
    Field,
    Guard,
    Operation,
    Param,
    Part,
    TransitionType,
    Value,
)
from milepost.core.transitions.operation_ids import IdRetention

NONE, PENDING, RUNNING = "", "pending", "running"
COMPLETED, FAILED, CANCELLED = "completed", "failed", "cancelled"
ACTIVE = (PENDING, RUNNING)
TERMINAL = (COMPLETED, FAILED, CANCELLED)
ANY = ACTIVE + TERMINAL
UNSUCCESSFUL = " ".join(status for status in ANY if status != COMPLETED)
"""The statuses in which a job has not done what another job waits for, once it has ended or was removed."""

LOST_PARENT = f"{FAILED} {CANCELLED}"
"""The statuses of a parent whose children, made by its runs, do not start and are cancelled."""

MOVES: dict[tuple[str, str], str] = {
    (NONE, PENDING): "submit",
    (NONE, RUNNING): "track",
    (PENDING, RUNNING): "claim, start",
    (PENDING, COMPLETED): "complete (caller)",
    (PENDING, FAILED): "expire, fail (caller), refused by the task queue",
    (PENDING, CANCELLED): "cancel",
    (RUNNING, PENDING): "retry, release, suspend, lost lease",
    (RUNNING, COMPLETED): "complete",
    (RUNNING, FAILED): "fail",
    (RUNNING, CANCELLED): "cancel",
    (FAILED, PENDING): "explicit retry",
    (CANCELLED, PENDING): "explicit retry",
    (FAILED, RUNNING): "reopen (track)",
    (CANCELLED, RUNNING): "reopen (track)",
}
"""(from, to) -> what makes the move. Staying in a status is no move; a delete is allowed in any status."""

REPORT, REPORT_EVENT = REPORTED, REPORTED_IN_EVENTS
"""The fields that a run reports, with every report and every end of a run; and those of them that events carry."""

REPORT_OPS: tuple[Operation, ...] = tuple(
    ("max" if name == "progress" else "set", name, Param(name)) for name in REPORT
)
HOLDS_TOKEN: Guard = ("token", Param("token"))
HOLDS_DRAINING_LEASE: tuple[Guard, ...] = (("stopping", Param("token")), ("eq", "stop_token", Param("token")))
IS_NEWEST_OF_KEY: Guard = ("unique", " ".join(ANY))
"""No newer job has the same unique key. Only the newest may resume, or one key would have two active jobs."""
SET_CALLER_FIELDS: tuple[Operation, ...] = (
    ("set", "message", Param("message")),
    ("max", "progress", Param("progress")),
    ("set", "error", Param("error")),
    ("set", "result", Param("result")),
)
"""Set what a caller gives with an update or a cancel."""
END_LEASE: tuple[Operation, ...] = (("clear", "token"), ("clear", "lease"))
END_JOB: tuple[Operation, ...] = (
    ("stamp", "completed"),
    *(("clear", name) for name in cleared("end")),
)
END_WAIT: tuple[Operation, ...] = tuple(("clear", name) for name in cleared("wait"))
"""Clear what keeps a pending job from starting: it ends, or its caller starts it."""
ARCHIVE_RUN: tuple[Operation, ...] = (
    ("entry", "runs", Field("started"), Field("ended"), Field("attempt"), Field("worker"), Field("release")),
    *(("clear", name) for name in ("ended", "release")),
)
"""Move the run whose end is in `ended` to the job's history. The current or last run is in the record itself."""
RESET_TO_PENDING: tuple[Operation, ...] = (
    ("set", "progress", Const("0")),
    ("clear", "progress_known"),
    ("set", "ready", Field("slot")),
    ("set", "ready", Field("ready_name")),
    ("stamp", "stale", Field("dispatch_after")),
    *(("clear", name) for name in cleared("requeue")),
)
SUSPEND: tuple[Operation, ...] = (
    ("stamp", "suspended"),
    ("add", "segments", Const("1")),
    ("add", "ran", Param("ran")),
    ("set", "wake_at", Param("wake_at")),
    ("set", "wait_groups", Param("wait_groups")),
    ("set", "ready", Field("slot")),
    ("set", "ready", Field("ready_name")),
    *(("clear", name) for name in cleared("requeue") if name != "started"),
)
"""Return to pending within the same attempt: its start, progress and history stay."""
END_RUN: tuple[Operation, ...] = (("stamp", "ended"), *ARCHIVE_RUN)
RETURN_TO_PENDING: tuple[Operation, ...] = (*END_RUN, *RESET_TO_PENDING)
CLEAR_END: tuple[Operation, ...] = (
    ("set", "ended", Field("completed")),
    *ARCHIVE_RUN,
    *(("clear", name) for name in cleared("reopen")),
)
ARCHIVE_FAILURE: tuple[Operation, ...] = (
    ("roll", "failures", "failures_before", Const(str(ATTEMPTS_BYTES))),
    ("append", "failures", Param("failure")),
)
"""Move the crash report of an attempt to the earlier ones. The newest are kept: at least ATTEMPTS_BYTES, and at most
twice as much plus two reports.
"""
SET_FAILURE: tuple[Operation, ...] = (
    ("set", "error", Param("error")),
    ("set", "failure", Param("failure")),
    *ARCHIVE_FAILURE,
)
REQUEST_STOP: tuple[Operation, ...] = (
    *(("clear", name) for name in ("stop_by", "stop_reason", "stop_token")),
    ("stamp", "stop_at"),
    ("set", "stop_by", Param("by")),
    ("set", "stop_reason", Param("why")),
    ("set", "stop_token", Field("token")),
    *(("clear", name) for name in ("stopped", "stop_how", "stop_confirmed", "late_result")),
)
DRAIN_LEASE: tuple[Operation, ...] = (*REQUEST_STOP, ("stop",))


class TransitionTemplate(NamedTuple):
    """A transition type and the names of its values, in order."""

    transition: TransitionType
    names: tuple[str, ...]
    known: frozenset[str]


def branch(
    sources: tuple[str, ...],
    target: str = "",
    *,
    guards: tuple[Guard, ...] = (),
    ops: tuple[Operation, ...] = (),
    event: str = "",
    keep: str = "life",
    emit: tuple[str, ...] = (),
    data: Param | None = None,
) -> Branch:
    """Return a branch that moves to `target` (empty: the status stays). KeyError if the table has no such move.

    `template` replaces each `Param` by its position.
    """
    if target:
        for source in sources:
            MOVES[source, target]
        ops = (("set", "status", Const(target)), *ops)
    if event and event != "deleted":
        emit = ("status", *emit)
    return Branch(sources, guards, ops, event, keep, emit, data)


def template(
    name: str, names: tuple[str, ...], *branches: Branch, retention: IdRetention = "last"
) -> TransitionTemplate:
    """Return a template in which each `Param` is its position in `names`; ValueError if `names` lacks one.

    `retention` says how the operation ids are kept.
    """

    def place(part: Part) -> Part:
        return names.index(part.name) if isinstance(part, Param) else part

    def placed(words: tuple[tuple[Part, ...], ...]) -> tuple[tuple[Part, ...], ...]:
        return tuple(tuple(place(part) for part in word) for word in words)

    return TransitionTemplate(
        TransitionType(
            name,
            tuple(
                Branch(
                    c.statuses,
                    placed(c.guards),
                    placed(c.ops),
                    c.event,
                    c.keep,
                    c.emit,
                    names.index(c.data.name) if isinstance(c.data, Param) else c.data,
                )
                for c in branches
            ),
            retention,
        ),
        names,
        frozenset(names),
    )


def bind(form: TransitionTemplate, operation_id: str, /, **values: Value) -> Change:
    """Return the change of a template with these values; others are None. KeyError for an unknown name."""
    if not form.known.issuperset(values):
        unknown = next(name for name in values if name not in form.known)
        raise KeyError(f"transition {form.transition.name!r} has no value {unknown!r}")
    return Change(form.transition, tuple(map(values.get, form.names)), operation_id)
