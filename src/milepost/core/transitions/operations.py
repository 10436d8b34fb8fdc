"""The guards and operations of transitions, and the reference interpreter for them.

A store applies a `Change` in one atomic step. A `TransitionType` is a constant: ordered `Branch`es. A `Change` is a
transition type with its values, by position, and an operation id. The first branch whose statuses and guards match is
applied. If none matches, the change is refused, nothing is written, and the answer is the current record.

A source is a parameter of the change (`Param`, in a transition type its position), a constant or a field of the record.
If a parameter is None, an operation that uses it does nothing and a guard that uses it holds. If a field is missing, an
operation that uses it does nothing (in "sum" it counts as 0); a guard reads it as empty, or as 0.

All guards of a branch must hold; they are listed in `guards`.

Operations, in order:
    ("set", f, src)         ("clear", f)          ("append", f, src)   joined by a comma
    ("entry", f, src, ...)  add a row to a table: the sources (missing ones empty) separated by US, the rows by RS.
                            Does nothing without the first source. Above ENTRIES_BYTES the oldest rows are dropped.
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
    ("blame", f, statuses)  set the field to ``dependency_failed: ID``, the id of the member for which "failed" holds
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
from typing import NamedTuple

from milepost.core.limits import key_of
from milepost.core.placement import ORPHANS, USER, failed_member, groups_of, member_groups, open_group
from milepost.core.serialization import RS, US
from milepost.core.transitions import operation_ids
from milepost.core.transitions.facts import DrainingLease, StoreFacts
from milepost.core.transitions.guards import holds
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

ENTRIES_BYTES = 8192


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


@dataclass(slots=True)
class BranchResult:
    """What the store has to write for an applied branch."""

    record: dict[str, str] | None
    """The new record, or None if it is removed."""
    before: Record
    """The old record, or empty."""
    version: int = 0
    """The version of the event."""
    stopping: DrainingLease | None = None
    dropped: DrainingLease | None = None
    event: str = ""
    keep: str = ""
    text: dict[str, str] = field(default_factory=dict)
    values: dict[str, str | None] = field(default_factory=dict)
    """What it sets in the key-value store; None for what it deletes."""
    gates: dict[str, int] = field(default_factory=dict)
    """The limit keys whose gates it closes, each with the time until then."""
    unstarted: tuple[tuple[str, int], ...] = ()
    """The limit keys to whose rates it gives a start back, each with the time of the start."""

    @property
    def ended(self) -> Record | None:
        """Return the new record if the change ends the job. A repeated write does not, nor a change of a job that has ended."""
        return self.record if "completed" in (self.record or ()) and "completed" not in self.before else None

    @property
    def spender(self) -> Record | None:
        """Return the new record if the ledger of usage has to count the change."""
        return self.record if self.record is not None and self.record.get("usage") != self.before.get("usage") else None

    def groups_to_check(self, job_id: str) -> list[str]:
        """Return the groups that may now be closed while jobs wait for them: those of a job that ended, was removed, or
        whose code stopped; and the one that holds the job since this change; and the orphans of a job that did not
        complete.
        """
        after, before, found = self.record, self.before, []
        if after is None or self.ended is not None:
            found += groups_of(job_id, before)
        if self.dropped is not None:
            found += [f"job:{job_id}", *filter(None, self.dropped.groups.split(US))]
        if (held := (after or {}).get("held")) and held != before.get("held") and not held.startswith(USER):
            found.append(held)
        if found and (after is None or after["status"] in ("failed", "cancelled")) and before.get("children") != "keep":
            found.append(ORPHANS + job_id)
        return found


class Decision(NamedTuple):
    """The index of the branch to apply, or -1 if the change is refused.

    `repeated`: the operation was applied before, so nothing is to be done. `wait`: microseconds until a change that was
    refused because of too many requests is accepted.
    """

    branch: int
    repeated: bool = False
    wait: int = 0


def decide(change: Change, job_id: str, record: Record | None, gone: str, facts: StoreFacts) -> Decision:
    """Return what to do with a change. `gone` has the callers' operation ids on removed records of this id."""
    retention = change.transition.retention
    known = operation_ids.applied_branch(change.operation_id, retention, record or {}, gone)
    if known is not None:
        return Decision(known, repeated=True)
    branch = match_branch(change, job_id, record, facts)
    if branch >= 0 and record is not None:
        if operation_ids.is_superseded(change.operation_id, retention, record):
            return Decision(branch, repeated=True)
        if retention == "callers" and (wait := operation_ids.wait(record, facts.now)):
            return Decision(-1, wait=wait)
    return Decision(branch)


def match_branch(change: Change, job_id: str, record: Record | None, facts: StoreFacts) -> int:
    """Return the index of the first branch that matches, or -1."""
    status = record["status"] if record is not None else ""
    held: Record = record if record is not None else {}

    def text(part: Part) -> str | None:
        return _text(part, change, held)

    for index, branch in enumerate(change.transition.branches):
        if status in branch.statuses and all(
            holds(guard, text, job_id, held, change.key, facts) for guard in branch.guards
        ):
            return index
    return -1


def apply_branch(change: Change, index: int, job_id: str, record: Record | None, facts: StoreFacts) -> BranchResult:
    """Apply one branch to a copy of the record and return what the store has to write."""
    branch = change.transition.branches[index]
    new: dict[str, str] = dict(record) if record is not None else {}
    effect = BranchResult(new, record or {})
    for operation in branch.ops:
        _perform(operation, change, job_id, new, facts, effect)
    if branch.event:
        version = int(new.get("version") or 0) + 1
        new["version"] = str(version)
        new["updated"] = str(facts.now)
        effect.event, effect.keep, effect.version = branch.event, branch.keep, version
        effect.text = {name: new[name] for name in branch.emit if new.get(name)}
        data = change.values[branch.data] if isinstance(branch.data, int) else None
        if data is not None:
            effect.text["data"] = data
    if record is None and branch.event:
        new["created_by_op"] = change.operation_id
    elif record is not None:

        def may_write() -> bool:
            if "token" in new and new["token"] == record.get("token"):
                return True  # the receipt of an earlier run may come while the next one runs
            return effect.stopping is not None or (effect.dropped is None and facts.stopping(job_id) is not None)

        retention = change.transition.retention
        new.update(operation_ids.id_fields(change.operation_id, index, retention, new, facts.now, may_write))
    else:
        effect.record = None
    if ("remove",) in branch.ops:
        effect.record = None
    return effect


def _perform(
    operation: Operation, change: Change, job_id: str, new: dict[str, str], facts: StoreFacts, effect: BranchResult
) -> None:
    if operation[0] == "set":  # most operations, many of them without a value
        value = _text(operation[2], change, new)
        if value is not None:
            new[str(operation[1])] = value
        return
    word, *rest = operation
    name = str(rest[0]) if rest else ""
    match word:
        case "max" | "add" | "append":
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
        case "entry":
            values = [_text(part, change, new) for part in rest[1:]]
            if values[0]:
                line = US.join(value or "" for value in values)
                new[name] = _bounded(f"{new[name]}{RS}{line}" if new.get(name) else line)
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
                key, slot, worker = (new.get(kept, "") for kept in ("unique_key", "slot", "worker"))
                groups = US.join(member_groups(new))
                effect.stopping = DrainingLease(token, int(expires), key, slot, worker, groups)
        case "hold":
            group = open_group(new, facts)
            if group is None and (failed := failed_member(new, name.split(), facts)) is not None:
                group = failed[0]
            new.pop("held", None)
            if group is not None:
                new["held"] = group
                new.pop("stale", None)
                if "cycle_check" in new:
                    new["stale"] = str(facts.now + int(new["cycle_check"]))
        case "blame":
            failed = failed_member(new, str(rest[1]).split(), facts)
            if failed is not None:
                new[name] = f"dependency_failed: {failed[1]}"
        case "drop":
            effect.dropped = facts.stopping(job_id)
        case "put":
            effect.values[_text(rest[0], change, new) or ""] = _text(rest[1], change, new) or ""
        case "erase":
            effect.values.update(dict.fromkeys(filter(None, (_text(rest[0], change, new) or "").split(US))))
        case "gate":
            effect.gates[_text(rest[0], change, new) or ""] = facts.now + int(_text(rest[1], change, new) or 0)
        case "unstart":
            started = _text(rest[0], change, new)
            if started is not None and new.get("slot"):
                effect.unstarted = ((key_of(new["slot"]), int(started)),)
        case "remove":
            pass
        case _:
            raise AssertionError(f"unknown operation {word!r}")


def _bounded(lines: str) -> str:
    while len(lines.encode("utf-8", "replace")) > ENTRIES_BYTES:
        lines = lines.partition(RS)[2]
    return lines


def _text(source: Part, change: Change, record: Record) -> str | None:
    if isinstance(source, int):
        return change.values[source]
    if isinstance(source, Field):
        return record.get(source.name)
    if isinstance(source, Const):
        return source.text
    raise AssertionError(f"{source!r} is not a source")
