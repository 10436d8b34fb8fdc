"""Changes outside the lifecycle, which scenarios use to create any record and to try single guards and operations."""

from __future__ import annotations

from milepost.core.transitions.operations import Branch, Change, Const, Guard, Operation, TransitionType, Value


def create_record(operation_id: str, status: str = "pending", **fields: str) -> Change:
    """Return a change that creates a record with these fields."""
    sets = tuple(("set", name, Const(value)) for name, value in fields.items())
    base: tuple[Operation, ...] = (
        ("set", "status", Const(status)),
        ("set", "type", Const("t")),
        ("set", "progress", Const("0")),
    )
    return Change(
        TransitionType("made", (Branch(("",), (), (*base, ("stamp", "created"), *sets), "made", "life"),)),
        (),
        operation_id,
    )


def guarded_change(operation_id: str, guard: Guard, *values: Value, key: str | None = None) -> Change:
    """Return a change that does nothing, if its guard holds."""
    return Change(
        TransitionType("asked", (Branch(("pending", "running"), (guard,), (), "asked"),)), values, operation_id, key
    )


def change_with(
    operation_id: str,
    *ops: Operation,
    values: tuple[Value, ...] = (),
    statuses: tuple[str, ...] = ("pending", "running"),
) -> Change:
    """Return a change of one branch without guards."""
    return Change(TransitionType("noted", (Branch(statuses, (), ops, "noted"),)), values, operation_id)
