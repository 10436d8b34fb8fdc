"""Decide which branch of a change applies, and apply it: the reference interpreter of the language in `change`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from milepost.core.limits import key_of
from milepost.core.placement import (
    BATCH,
    ORPHANS,
    USER,
    after_groups,
    blame_text,
    failed_member,
    groups_joined,
    groups_of,
    is_orphan,
    member_groups,
    open_group,
    starts_at,
)
from milepost.core.serialization import RS, US
from milepost.core.transitions import operation_ids
from milepost.core.transitions.change import (
    Change,
    Const,
    DrainingLease,
    Field,
    Guard,
    Operation,
    Part,
    Record,
    StoreFacts,
)

ENTRIES_BYTES = 8192


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
        if status not in branch.statuses:
            continue
        for guard in branch.guards:
            if not holds(guard, text, job_id, held, change.key, facts):
                break
        else:
            return index
    return -1


def holds(
    guard: Guard, text: Callable[[Part], str | None], job_id: str, record: Record, key: str | None, facts: StoreFacts
) -> bool:
    """Return whether a guard holds for a record. `text` returns the text of a source, `key` is that of the change."""
    word, *rest = guard
    match word:  # those of starts and ends first
        case "token":
            return bool(record.get("token")) and record["token"] == text(rest[0])
        case "has" | "lacks":
            return (str(rest[0]) in record) is (word == "has")
        case "free":
            key = record.get("unique_key") or key
            return facts.stopping(job_id) is None and not (key and facts.key_is_draining(key))
        case "startable":
            start = starts_at(record)
            return start is not None and start <= facts.now
        case "ahead":
            return str(rest[0]) not in record or int(record[str(rest[0])]) > facts.now
        case "orphan" | "parented":
            return is_orphan(record, str(rest[0]).split(), facts.other) is (word == "orphan")
        case "eq" | "ne":
            wanted = text(rest[1])
            missing = isinstance(rest[1], int) and wanted is None
            return missing or (record.get(str(rest[0]), "") == (wanted or "")) is (word == "eq")
        case "lt" | "ge":
            bound = text(rest[1])
            missing = isinstance(rest[1], int) and bound is None
            return missing or (float(record.get(str(rest[0])) or 0) < float(bound or 0)) is (word == "lt")
        case "past":
            return str(rest[0]) in record and int(record[str(rest[0])]) <= facts.now
        case "due":
            return str(rest[0]) not in record or int(record[str(rest[0])]) <= facts.now
        case "known":
            return all(map(facts.knows, after_groups(text(rest[0]) or "")))
        case "open":
            return open_group(record, facts) is not None
        case "failed":
            return failed_member(record, str(rest[0]).split(), facts) is not None
        case "leased":
            return _is_leased(text(rest[0]), text(rest[1]), facts)
        case "joinable":
            batches = map(facts.other, groups_joined(text(rest[0]) or ""))
            is_closed = any(one and one["type"] == BATCH and ("closed" in one or "completed" in one) for one in batches)
            return not is_closed or _is_leased(text(rest[1]), text(rest[2]), facts)
        case "unique":
            key = key or record.get("unique_key")
            return not key or facts.key_owner_status(key, job_id) not in str(rest[0]).split()
        case "value":
            return facts.value_of(text(rest[0]) or "") == text(rest[1])
        case "stopping" | "overdue":
            lease = facts.stopping(job_id)
            if lease is None or lease.token != text(rest[0]):
                return False
            return word == "stopping" or lease.expires <= facts.now
    raise AssertionError(f"unknown guard {word!r}")


def _is_leased(job_id: str | None, token: str | None, facts: StoreFacts) -> bool:
    other = facts.other(job_id) if job_id else None
    return other is not None and bool(other.get("token")) and other["token"] == token


def apply_branch(change: Change, index: int, job_id: str, record: Record | None, facts: StoreFacts) -> BranchResult:
    """Apply one branch to a copy of the record and return what the store has to write."""
    branch = change.transition.branches[index]
    new: dict[str, str] = dict(record) if record is not None else {}
    effect = BranchResult(new, record or {})
    values = change.values
    for step in branch.steps:
        if isinstance(step, frozenset):
            for name in step.intersection(new):
                del new[name]
        elif isinstance(step, list):
            for name, source in step:
                value = values[source] if isinstance(source, int) else source
                if value is not None:
                    new[name] = value
        else:
            _perform(step, change, job_id, new, facts, effect)
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
    return effect


def _perform(
    operation: Operation, change: Change, job_id: str, new: dict[str, str], facts: StoreFacts, effect: BranchResult
) -> None:
    word, *rest = operation
    name = str(rest[0]) if rest else ""
    match word:
        case "stamp":
            offset = _text(rest[1], change, new) if len(rest) > 1 else "0"
            if offset is not None:
                new[name] = str(facts.now + int(offset))
        case "once":
            new.setdefault(name, str(facts.now))
        case "take":
            new["token"] = f"{facts.next_fence()}:{_text(rest[0], change, new)}"
            new["lease"] = str(facts.now + int(_text(rest[1], change, new) or 0))
        case "set":
            value = _text(rest[1], change, new)
            if value is not None:
                new[name] = value
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
        case "roll":
            if len(new.get(name, "").encode("utf-8", "replace")) >= int(_text(rest[2], change, new) or 0):
                new[str(rest[1])] = new.pop(name, "")
        case "sum":
            new[name] = str(sum(int(_text(part, change, new) or 0) for part in rest[1:]))
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
            failed = failed_member(new, str(rest[2]).split(), facts)
            if failed is not None:
                new[name], new[str(rest[1])] = blame_text(failed[1], facts.ended(failed[1])), failed[1]
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
            effect.record = None
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
