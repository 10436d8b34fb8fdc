"""The table of legal moves, and how a case of a change is built from it. Owns the statuses; knows no store."""

from __future__ import annotations

from typing import NamedTuple

from milepost.core.change import Case, Change, Guard, Op, Shape, Value
from milepost.core.defaults import ATTEMPTS_BYTES

NONE, PENDING, RUNNING = "", "pending", "running"
COMPLETED, FAILED, CANCELLED = "completed", "failed", "cancelled"
ACTIVE = (PENDING, RUNNING)
TERMINAL = (COMPLETED, FAILED, CANCELLED)
ANY = ACTIVE + TERMINAL

MOVES: dict[tuple[str, str], str] = {
    (NONE, PENDING): "submit",
    (NONE, RUNNING): "track",
    (PENDING, RUNNING): "claim, start",
    (PENDING, COMPLETED): "complete (caller)",
    (PENDING, FAILED): "expire, fail (caller)",
    (PENDING, CANCELLED): "cancel",
    (RUNNING, PENDING): "retry, release, lost lease",
    (RUNNING, COMPLETED): "complete",
    (RUNNING, FAILED): "fail",
    (RUNNING, CANCELLED): "cancel",
    (FAILED, PENDING): "explicit retry",
    (CANCELLED, PENDING): "explicit retry",
    (FAILED, RUNNING): "reopen (track)",
    (CANCELLED, RUNNING): "reopen (track)",
}
"""(from, to) -> what makes the move. Staying in a status is no move; a delete ends the record from any."""

REPORT = ("progress", "message", "stages", "item_counts", "eta", "cursors", "stalled")
"""What a run says of itself; every report and every end of a run may carry it."""

REPORT_OPS: tuple[Op, ...] = tuple(("max" if name == "progress" else "set", name, f"${name}") for name in REPORT)
TOKEN: Guard = ("token", "$token")
NEWEST: Guard = ("unique", " ".join(ANY))
"""No newer job has the unique key of this one: only the newest may go on, or one key would have two jobs."""
LEASE_ENDS: tuple[Op, ...] = (("clear", "token"), ("clear", "lease"))
ENDS: tuple[Op, ...] = (
    ("stamp", "completed"),
    *(("clear", name) for name in ("queue", "eta", "stalled", "stale", "suspect")),
)
BACK_TO_PENDING: tuple[Op, ...] = (
    ("set", "progress", "=0"),
    ("set", "queue", ".slot"),
    ("stamp", "stale", ".hand_over"),
    *(("clear", name) for name in ("started", "worker", "eta", "stalled")),
)
CLEARS_END: tuple[Op, ...] = tuple(("clear", name) for name in ("completed", "error", "result", "failure"))
ATTEMPT: tuple[Op, ...] = (
    ("roll", "attempts", "attempts_before", f"={ATTEMPTS_BYTES}"),
    ("append", "attempts", "$failure"),
)
"""The dossier of an attempt goes to those before it, of which the newest are kept: at least ATTEMPTS_BYTES of them, and
at most twice as much and two dossiers.
"""
FAILURE: tuple[Op, ...] = (("set", "error", "$error"), ("set", "failure", "$failure"), *ATTEMPT)
STOP_ASKED: tuple[Op, ...] = (
    *(("clear", name) for name in ("stop_by", "stop_why", "stop_token")),
    ("stamp", "stop_at"),
    ("set", "stop_by", "$by"),
    ("set", "stop_why", "$why"),
    ("set", "stop_token", ".token"),
    *(("clear", name) for name in ("stopped", "stop_how", "stop_confirmed", "late_result")),
)
STOP: tuple[Op, ...] = (*STOP_ASKED, ("stop",))


class Template(NamedTuple):
    """A shape and the names of its values, in their order."""

    shape: Shape
    names: tuple[str, ...]
    known: frozenset[str]


def case(
    sources: tuple[str, ...],
    target: str = "",
    *,
    guards: tuple[Guard, ...] = (),
    ops: tuple[Op, ...] = (),
    event: str = "",
    keep: str = "life",
    emit: tuple[str, ...] = (),
    data: str | None = None,
) -> Case:
    """A case that moves to `target` (empty: the status stays); KeyError when the table has no such move.

    Sources written ``"$name"`` are values; `template` gives them their places.
    """
    if target:
        for source in sources:
            MOVES[source, target]
        ops = (("set", "status", f"={target}"), *ops)
    if event and event != "deleted":
        emit = ("status", *emit)
    return Case(sources, guards, ops, event, keep, emit, data)


def template(name: str, names: tuple[str, ...], *cases: Case) -> Template:
    """Give every ``$value`` its place; ValueError when `names` lacks one."""

    def place(part: int | str) -> int | str:
        return names.index(part[1:]) if isinstance(part, str) and part.startswith("$") else part

    def placed(words: tuple[tuple[int | str, ...], ...]) -> tuple[tuple[int | str, ...], ...]:
        return tuple(tuple(place(part) for part in word) for word in words)

    return Template(
        Shape(
            name,
            tuple(
                Case(
                    c.statuses,
                    placed(c.guards),
                    placed(c.ops),
                    c.event,
                    c.keep,
                    c.emit,
                    None if c.data is None else place(c.data),
                )
                for c in cases
            ),
        ),
        names,
        frozenset(names),
    )


def fill(form: Template, op: str, /, **values: Value) -> Change:
    """The change of a template with its values; those not given are None. KeyError for a name that it lacks."""
    if not form.known.issuperset(values):
        raise KeyError(f"{form.shape.name} has no value {next(name for name in values if name not in form.known)!r}")
    return Change(form.shape, tuple(map(values.get, form.names)), op)
