"""The language of transitions: a Change is data that a store applies in one atomic step. Owns its words and their
meaning (`fit` and `perform` are the reference); knows no status, no job type and no store.

A `Shape` is a constant: ordered `Case`s. A `Change` is a shape with its values, by place, and an operation id.
The first case whose statuses and guards hold is performed; when none holds the change is refused, nothing is
written, and the answer is the record as it is.

Sources (`Src`): an int is the value at that place; ``"=text"`` the text itself; ``".field"`` a field of the record.
A value of None makes an operation that names it a no-op, and a guard that names it hold. A missing field makes an
operation that names it as a source a no-op (in "sum": 0); to a guard it is empty, or 0.

Guards, all of one case must hold:
    ("token", src)          the record is under a live lease with that token
    ("eq" | "ne", f, src)   the field (missing: empty) is, or is not, that text
    ("lt" | "ge", f, src)   the field as a number (missing: 0) is below, or not below, that number
    ("has" | "lacks", f)    the field is there, or is not
    ("past", f)             the field is there and not after the store's clock
    ("ahead", f)            the field is missing, or after the store's clock
    ("due", f)              the field is missing, or not after the store's clock
    ("free",)               no stopping lease stands in the way of this id or of its unique key (without a record: of value `key`)
    ("unique", statuses)    no other record of these statuses (separated by spaces) has the unique key (of value `key`, else of the record)
    ("stopping", src)       the stopping lease of this id has that token
    ("overdue", src)        the same, and it ran out by the store's clock

Operations, in order:
    ("set", f, src)         ("clear", f)          ("append", f, src)   joined by a comma
    ("roll", f, g, src)     a field of at least that many bytes becomes g, in place of what g was, and is cleared
    ("add", f, src)         integer; missing: 0   ("sum", f, src, src) integer
    ("max", f, src)         the larger number, as its own text
    ("stamp", f[, src])     the store's clock in microseconds, plus src microseconds
    ("once", f)             stamp, unless it is there
    ("take", src, src)      (nonce, microseconds) a live lease begins: field `token` = fence ":" nonce, field `lease` = clock + microseconds.
                            The fence is max(last + 1, clock) of the namespace.
    ("stop",)               the live lease, if any, becomes the stopping lease of this id, with its token and deadline;
                            `token` and `lease` are cleared, the slot stays taken
    ("drop",)               the stopping lease of this id ends; what waited for it becomes claimable
    ("remove",)             the record goes with its indexes and events, leaving the operation ids that created and removed it for 60 s

A performed case with an `event` adds one to `version`, stamps `updated` and appends the event with that version:
`keep` says where beyond the feed: "life" with the record, always; "list" in its bounded list; "feed" nowhere else.
An event carries the fields named by `emit` as they are afterwards (those missing or empty are left out) and, as
`data`, the value at place `data`.

What is derived from the fields of a record (every store keeps it, see `Placement`) moves in the same step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

Record = Mapping[str, str]
Src = int | str
Guard = tuple[Src, ...]
Op = tuple[Src, ...]
Value = str | None

OP_WIDTH = 8
OPS_KEPT = 4


@dataclass(frozen=True, slots=True)
class Case:
    """One way in which a change may go; `statuses` are those it may start from, ``""`` meaning no record."""

    statuses: tuple[str, ...]
    guards: tuple[Guard, ...] = ()
    ops: tuple[Op, ...] = ()
    event: str = ""
    keep: str = "feed"
    emit: tuple[str, ...] = ()
    data: int | str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The constant part of a change: a name and its cases. Compared by identity, so that stores can compile it once."""

    name: str
    cases: tuple[Case, ...]


class Change(NamedTuple):
    """A shape with its values and its operation id (8 characters); safe to repeat with the same id."""

    shape: Shape
    values: tuple[Value, ...]
    op: str
    key: str | None = None
    """The unique key that the guards "unique" and "free" ask about while there is no record."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """A lease whose code was told to stop: it outlives the record and keeps its id, key and slot occupied."""

    token: str
    expires: int
    key: str = ""
    slot: str = ""
    worker: str = ""


class Facts(Protocol):
    """What a change may ask about the store, at one instant."""

    @property
    def now(self) -> int:
        """The store's clock, in microseconds since 1970."""

    def stopping(self, job_id: str) -> Stopping | None:
        """The stopping lease of an id."""

    def key_is_stopping(self, key: str) -> bool:
        """Whether some stopping lease keeps this unique key occupied."""

    def status_of_holder(self, key: str, job_id: str) -> str:
        """The status of the other record that has this unique key; empty when there is none."""

    def next_fence(self) -> int:
        """Take the next fence number of the namespace."""


@dataclass(slots=True)
class Effect:
    """What a performed case asks of the store, beside replacing the record."""

    record: dict[str, str] | None
    """The record as it is to be; None when it goes."""
    version: int = 0
    """The version of the event."""
    stopping: Stopping | None = None
    dropped: bool = False
    event: str = ""
    keep: str = ""
    text: dict[str, str] = field(default_factory=dict)


def repeated(change: Change, record: Record | None) -> int:
    """The case that this very operation was performed with, or -1 when it is new to the record.

    The record knows the operation that created it (`born`) and the last four that changed it (`ops`).
    """
    if record is None:
        return -1
    if record.get("born") == change.op:
        return 0
    ops = record.get("ops", "")
    for start in range(0, len(ops), OP_WIDTH + 1):
        if ops.startswith(change.op, start):
            return int(ops[start + OP_WIDTH])
    return -1


def fit(change: Change, job_id: str, record: Record | None, facts: Facts) -> int:
    """The index of the first case that fits, or -1."""
    status = record["status"] if record is not None else ""
    held: Record = record if record is not None else {}
    for index, case in enumerate(change.shape.cases):
        if status in case.statuses and all(_holds(g, change, job_id, held, facts) for g in case.guards):
            return index
    return -1


def _holds(guard: Guard, change: Change, job_id: str, record: Record, facts: Facts) -> bool:
    word, *rest = guard
    match word:
        case "token":
            return bool(record.get("token")) and record["token"] == _text(rest[0], change, record)
        case "eq" | "ne":
            wanted = _text(rest[1], change, record)
            missing = isinstance(rest[1], int) and wanted is None
            return missing or (record.get(str(rest[0]), "") == (wanted or "")) is (word == "eq")
        case "lt" | "ge":
            bound = _text(rest[1], change, record)
            missing = isinstance(rest[1], int) and bound is None
            return missing or (float(record.get(str(rest[0])) or 0) < float(bound or 0)) is (word == "lt")
        case "has":
            return str(rest[0]) in record
        case "lacks":
            return str(rest[0]) not in record
        case "past":
            return str(rest[0]) in record and int(record[str(rest[0])]) <= facts.now
        case "ahead":
            return str(rest[0]) not in record or int(record[str(rest[0])]) > facts.now
        case "due":
            return str(rest[0]) not in record or int(record[str(rest[0])]) <= facts.now
        case "free":
            key = record.get("unique_key") or change.key
            return facts.stopping(job_id) is None and not (key and facts.key_is_stopping(key))
        case "unique":
            key = change.key or record.get("unique_key")
            return not key or facts.status_of_holder(key, job_id) not in str(rest[0]).split()
        case "stopping" | "overdue":
            lease = facts.stopping(job_id)
            if lease is None or lease.token != _text(rest[0], change, record):
                return False
            return word == "stopping" or lease.expires <= facts.now
    raise AssertionError(f"unknown guard {word!r}")


def perform(change: Change, index: int, job_id: str, record: Record | None, facts: Facts) -> Effect:
    """Perform one case on a copy of the record."""
    case = change.shape.cases[index]
    new: dict[str, str] = dict(record) if record is not None else {}
    effect = Effect(new)
    for op in case.ops:
        _perform(op, change, job_id, new, facts, effect)
    if case.event:
        version = int(new.get("version") or 0) + 1
        new["version"] = str(version)
        new["updated"] = str(facts.now)
        effect.event, effect.keep, effect.version = case.event, case.keep, version
        effect.text = {name: new[name] for name in case.emit if new.get(name)}
        data = change.values[int(case.data)] if case.data is not None else None
        if data is not None:
            effect.text["data"] = data
    if record is None and case.event:
        new["born"] = change.op
    elif record is not None:
        new["ops"] = (new.get("ops", "") + change.op + str(index))[-(OP_WIDTH + 1) * OPS_KEPT :]
    else:
        effect.record = None
    if ("remove",) in case.ops:
        effect.record = None
    return effect


def _perform(op: Op, change: Change, job_id: str, new: dict[str, str], facts: Facts, effect: Effect) -> None:
    word, *rest = op
    name = str(rest[0]) if rest else ""
    match word:
        case "set" | "max" | "add" | "append":
            value = _text(rest[1], change, new)
            if value is None:
                return
            old = new.get(name, "")
            if word == "max" and old and float(old) >= float(value):
                return
            if word == "add":
                value = str(int(old or 0) + int(value))
            if word == "append" and old:
                value = f"{old},{value}"
            new[name] = value
        case "clear":
            new.pop(name, None)
        case "roll":
            if len(new.get(name, "").encode("utf-8", "replace")) >= int(_text(rest[2], change, new) or 0):
                new[str(rest[1])] = new.pop(name, "")
        case "sum":
            new[name] = str(sum(int(_text(part, change, new) or 0) for part in rest[1:]))
        case "stamp":
            offset = _text(rest[1], change, new) if len(rest) > 1 else "0"
            if offset is not None:
                new[name] = str(facts.now + int(offset))
        case "once":
            new.setdefault(name, str(facts.now))
        case "take":
            new["token"] = f"{facts.next_fence()}:{_text(rest[0], change, new)}"
            new["lease"] = str(facts.now + int(_text(rest[1], change, new) or 0))
        case "stop":
            token = new.pop("token", "")
            expires = new.pop("lease", "0")
            if token:
                effect.stopping = Stopping(
                    token, int(expires), new.get("unique_key", ""), new.get("slot", ""), new.get("worker", "")
                )
        case "drop":
            effect.dropped = True
        case "remove":
            pass
        case _:
            raise AssertionError(f"unknown operation {word!r}")


def _text(src: Src, change: Change, record: Record) -> str | None:
    if isinstance(src, int):
        return change.values[src]
    if src[0] == "=":
        return src[1:]
    return record.get(src[1:])
