"""A change as a value, the language in which transitions are written, and what a change may read of the store.

A store applies a `Change` in one atomic step. A `TransitionType` is a constant: ordered `Branch`es. A `Change` is a
transition type with its values, by position, and an operation id. The first branch whose statuses and guards match is
applied. If none matches, the change is refused, nothing is written, and the answer is the current record.

A source is a parameter of the change (`Param`, in a transition type its position), a constant or a field of the record.
If a parameter is None, an operation that uses it does nothing and a guard that uses it holds. If a field is missing, an
operation that uses it does nothing (in "sum" it counts as 0); a guard reads it as empty, or as 0.

All guards of a branch must hold:
    ("token", src)          the record has a live lease with this token
    ("eq" | "ne", f, src)   the field (missing: empty) equals, or does not equal, this text
    ("lt" | "ge", f, src)   the field as a number (missing: 0) is less than, or at least, this number
    ("has" | "lacks", f)    the field exists, or does not
    ("past", f)             the field exists and is not after the store's clock
    ("ahead", f)            the field is missing, or after the store's clock
    ("due", f)              the field is missing, or not after the store's clock
    ("startable",)          the record is not held, and its earliest start has come: see `core.placement.starts_at`
    ("known", src)          every group that the pairs of `after` in this text name is known to the store
    ("open",)               a group that the record waits for has an open member: see `core.placement`
    ("failed", statuses)    a member of such a group ended, or was removed, in one of these statuses, and the record asks
                            to be cancelled then
    ("free",)               no draining lease blocks this id or its unique key (without a record: the change's `key`)
    ("unique", statuses)    no other record in these statuses (separated by spaces) has the unique key (the change's
                            `key`, else that of the record)
    ("value", key, src)     the key-value store has this text under the key, which is a source as well
    ("stopping", src)       the draining lease of this id has this token
    ("overdue", src)        the same, and the lease has expired by the store's clock
    ("leased", src, src)    the other record with this id has a live lease with this token
    ("joinable", src, src, src)  no group that the pairs of `group` in this text name belongs to a closed batch, or the other
                            record with this id has a live lease with this token
    ("orphan", statuses)    the record was made by a run, and its parent has one of these statuses, or no record
    ("parented", statuses)  the opposite

Operations, in order:
    ("set", f, src)         ("clear", f)          ("append", f, src)   joined by a comma
    ("entry", f, src, ...)  add a row to a table: the sources (missing ones empty) separated by US, the rows by RS.
                            Does nothing without the first source. Above `operations.ENTRIES_BYTES` the oldest rows are dropped.
    ("roll", f, g, src)     if the field has at least this many bytes, move it to g, replacing what g held
    ("add", f, src)         integer; missing: 0   ("sum", f, src, src) integer
    ("max", f, src)         the larger number, in its own spelling
    ("stamp", f[, src])     the store's clock in microseconds, plus src microseconds
    ("once", f)             stamp, unless the field exists
    ("take", src, src)      (nonce, microseconds) acquire a lease: `token` = fence ":" nonce, `lease` = clock +
                            microseconds. The fence is greater than every earlier one of this job;
                            max(last + 1, clock) of the namespace is one.
    ("stop",)               turn the live lease, if any, into the draining lease of this id, with its token and expiry;
                            `token` and `lease` are cleared, the slot stays taken
    ("hold", statuses)      set `held` to the first awaited group that has an open member, else to the one for which
                            "failed" holds, and `stale` to the clock plus `cycle_check`, or clear it if there is none; without such a
                            group clear `held`
    ("blame", f, g, statuses)  set the field to the words of `core.placement.blame_text` on the member for which "failed"
                            holds, and g to its id
    ("put", key, src)       set the value of a key of the key-value store, without an expiry
    ("erase", src)          delete the values of these keys, separated by US
    ("gate", key, src)      close the gate of a limit key for src microseconds, or leave it closed for longer
    ("unstart", src)        give the start at this time, by the store's clock, back to the rate of the limit key
    ("drop",)               end the draining lease of this id; jobs that waited for it become claimable
    ("remove",)             remove the record with its indexes and events; the operation ids of callers stay known,
                            see `operation_ids`

An applied branch with an `event` increments `version`, stamps `updated` and appends the event with that version.
`keep` says where the event is kept besides the feed: "life" with the record, always; "list" in the record's bounded
list; "feed" nowhere else. An event carries the fields named by `emit` with their new values (missing or empty ones are
left out) and, as `data`, the value at position `data`.

Every store updates the indexes of the record in the same step, see `milepost.stores.protocol`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple, Protocol

from milepost.core.placement import Members
from milepost.core.transitions.operation_ids import IdRetention

Record = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Param:
    """A value of the change, by its name in the template, which replaces it by its position."""

    name: str


@dataclass(frozen=True, slots=True)
class Const:
    """A constant text."""

    text: str


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the record."""

    name: str


Part = str | int | Param | Const | Field
Guard = tuple[Part, ...]
Operation = tuple[Part, ...]
Value = str | None
Given = str | int
"""The text of a constant, or the position of a parameter."""
Step = Operation | frozenset[str] | list[tuple[str, Given]]
"""An operation, the fields to clear, or the fields to set, each with its source."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One way to apply a change. `statuses` are those it may start from; ``""`` means that there is no record."""

    statuses: tuple[str, ...]
    guards: tuple[Guard, ...] = ()
    ops: tuple[Operation, ...] = ()
    event: str = ""
    keep: str = "feed"
    emit: tuple[str, ...] = ()
    data: int | Param | None = None
    steps: tuple[Step, ...] = field(init=False, repr=False, compare=False)
    """The operations. Those that clear fields, or set them to parameters and constants, one after another are one step: many
    branches clear up to 22 fields and set up to 40."""

    def __post_init__(self) -> None:
        steps: list[Step] = []
        for kind, group in groupby(self.ops, _kind):
            if kind == "clear":
                steps.append(frozenset(str(operation[1]) for operation in group))
            elif kind == "set":
                steps.append([(str(name), _given(source)) for _, name, source in group])
            else:
                steps += group
        object.__setattr__(self, "steps", tuple(steps))


def _kind(operation: Operation) -> str:
    """Return the word that the operations of one step have in common, empty for one that is a step by itself."""
    is_given = operation[0] == "set" and isinstance(operation[2], int | Const)
    return str(operation[0]) if is_given or operation[0] == "clear" else ""


def _given(source: Part) -> Given:
    if isinstance(source, Const):
        return source.text
    assert isinstance(source, int)
    return source


@dataclass(frozen=True, slots=True, eq=False)
class TransitionType:
    """The constant part of a change: its name, its branches, and how its operation ids are kept (see `operation_ids`).

    Compared by identity, so that stores can compile it once.
    """

    name: str
    branches: tuple[Branch, ...]
    retention: IdRetention = "last"


class Change(NamedTuple):
    """A transition type with its values and an operation id (8 characters, see `stores.ids`).

    Safe to repeat with the same id.
    """

    transition: TransitionType
    values: tuple[Value, ...]
    operation_id: str
    key: str | None = None
    """The unique key that the guards "unique" and "free" check while there is no record."""


@dataclass(frozen=True, slots=True)
class DrainingLease:
    """A lease whose code was asked to stop. It outlives the record and keeps the id, the unique key and the slot taken."""

    token: str
    expires: int
    key: str = ""
    slot: str = ""
    worker: str = ""
    groups: str = ""
    """The groups that its job is a member of, separated by US; they stay open until the code has stopped."""


class StoreFacts(Members, Protocol):
    """What a change may read of the store, at one instant."""

    @property
    def now(self) -> int:
        """Return the store's clock, in microseconds since 1970."""

    def other(self, job_id: str) -> Record | None:
        """Return the status, the type and the token of the record of another id, at least, or None."""

    def ended(self, job_id: str) -> Record | None:
        """Return the status, the type, the error and `failed_member` of the record of a member that `ended_in` names, or None."""

    def knows(self, group: str) -> bool:
        """Return whether the job of ``job:ID`` or ``children:ID`` has a record, or a record is in ``group:NAME``."""

    def stopping(self, job_id: str) -> DrainingLease | None:
        """Return the draining lease of an id, or None."""

    def key_is_draining(self, key: str) -> bool:
        """Return whether a draining lease has this unique key."""

    def key_owner_status(self, key: str, job_id: str) -> str:
        """Return the status of the other record that owns this unique key, or empty if there is none."""

    def next_fence(self) -> int:
        """Take a fence that is greater than every earlier one of the job."""

    def value_of(self, key: str) -> str | None:
        """Return the value of a key of the key-value store, or None if it does not exist or has expired."""
