"""What of a state can matter later. States that are equal in it are explored once, so the clock may run without end.

Times are relative to now and cut off, tokens are numbered in the order in which they are met, and operation ids are
kept only as a request that will be delivered again can meet them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from milepost.core.codecs import TIME
from milepost.core.placement import starts_at
from milepost.core.record import FIELDS
from milepost.core.transitions.change import Const, Field, Record, TransitionType
from milepost.core.transitions.operation_ids import applied_branch, is_superseded
from milepost.stores.memory.state import MemoryState
from milepost.stores.sweep import hold_of
from milepost.testing.conformance.transition_matrix import PLANS
from tests.explorer.actors import Actors, Repeat
from tests.explorer.world import JOB, SETTINGS, TICK

READ_ELSEWHERE = {"status", "token", "lease", "suspect", "max_crashes", "stop_confirmed"}
"""Fields that stores, the sweeper and the rules read, though no guard does."""
NUMBERS = {"version"}
"""Fields that guards compare only with what they were at another time. No actor of the explorer uses such a guard."""
OUTAGE = 2
"""Ticks without a sweep after which the next one holds back: more than half a lease."""


def _types() -> list[TransitionType]:
    return [plan("op", "1:a").transition for plan in PLANS.values()]


def _relevant() -> tuple[dict[str, set[str] | None], set[str]]:
    """Return the fields that guards read, directly or as the source of another, and those of them that are times.

    A field that guards compare only with constants has these constants; any other value is as good as any.
    """
    fields: dict[str, set[str] | None] = dict.fromkeys(READ_ELSEWHERE)
    branches = [branch for known in _types() for branch in known.branches]
    for word, *rest in (guard for branch in branches for guard in branch.guards):
        parts = [part for part in rest if isinstance(part, Field)]
        fields.update(dict.fromkeys((part.name for part in parts), None))
        if word in ("eq", "ne", "lt", "ge", "has", "lacks", "past", "ahead", "due"):
            name, other = str(rest[0]), rest[1] if len(rest) > 1 else None
            if word in ("eq", "ne") and isinstance(other, Const) and fields.get(name, set()) is not None:
                fields[name] = {*(fields.get(name) or ()), other.text}
            else:
                fields[name] = None
    operations = [operation for branch in branches for operation in branch.ops]
    sources = [
        (op[1], part.name) for op in operations for part in op[2:] if isinstance(part, Field) and op[0] != "entry"
    ]
    while more := {source for target, source in sources if target in fields and source not in fields}:
        fields.update(dict.fromkeys(more, None))
    times = {one.key for one in FIELDS if one.codec is TIME} | {"lease"}
    times |= {str(op[1]) for op in operations if op[0] in ("stamp", "once")}
    return {name: fields[name] for name in sorted(fields) if name not in NUMBERS}, times


RELEVANT, TIMES = _relevant()


class _Numbers:
    """Numbers for tokens, in the order in which they are met."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def of(self, token: str) -> int:
        return self._known.setdefault(token, len(self._known))

    def known(self, token: str) -> int:
        return self._known.get(token, -1)


def key_of(memory: MemoryState, actors: Actors) -> Hashable:
    """Return what of a state matters later."""
    numbers, now = _Numbers(), memory.now
    record, stop = memory.records.get(JOB), memory.stops.get(JOB)
    last, hold = memory.last_sweep, memory.hold
    lease = SETTINGS.lease_micros
    recovered = None if hold is None else hold_of(hold.since + lease, hold.since, hold, lease)[0]
    parts = (
        None if record is None else _record(record, now, recovered, numbers),
        None if stop is None else (numbers.of(stop.token), _ticks(stop.expires, now), stop.expires <= (recovered or 0)),
        None if last is None else min(OUTAGE, (now - last) // (TICK * 1_000_000)),
        None if hold is None else (_ticks(hold.since + lease, now), _ticks(hold.until, now)),
        tuple((write.change.transition.name, _values(write.change.values, numbers)) for write in actors.found),
        None if actors.repeat is None else _repeat(actors.repeat, memory, record, numbers),
        actors.budgets,
        actors.created,
    )
    return parts, tuple(sorted((run.mode, numbers.known(run.token)) if run else ("", -1) for run in actors.workers))


def _ticks(time: int, now: int) -> int:
    """Return the ticks until a time; 0 if it has come."""
    return max(0, -((now - time) // (TICK * 1_000_000)))


def _record(record: Record, now: int, recovered: int | None, numbers: _Numbers) -> Hashable:
    """Return what matters of a record. `recovered`: leases that end by then are lost if the hold ends late."""
    found: list[Hashable] = []
    for name, constants in RELEVANT.items():
        text = record.get(name)
        if text is None:
            found.append(None)
        elif name in ("token", "stop_token"):
            found.append(numbers.of(text))
        elif name in TIMES:
            found.append(_ticks(int(text), now))
        else:
            found.append(text if constants is None or text in constants else "*")
    start = starts_at(record)
    lease = int(record.get("lease", 0))
    is_unrenewed = bool(lease) and lease - int(record.get("started", 0)) <= SETTINGS.lease_micros
    return (*found, None if start is None else _ticks(start, now), is_unrenewed, 0 < lease <= (recovered or 0))


def _values(values: Iterable[str | None], numbers: _Numbers) -> tuple[Hashable, ...]:
    """Return the values of a change that decide: numbers and tokens; texts are only kept."""
    return tuple(
        value
        if value is None or value.isdigit()
        else numbers.of(value)
        if value[:1].isdigit() and ":n" in value
        else "*"
        for value in values
    )


def _repeat(repeat: Repeat, memory: MemoryState, record: Record | None, numbers: _Numbers) -> Hashable:
    """Return a request that will be delivered again, and what the store remembers of it."""
    claim = repeat.claim
    if claim is not None:
        number, operation_id, *_ = memory.claims[claim.worker]
        return (repeat.action, repeat.accepted, repeat.age, number > claim.number, operation_id == claim.operation_id)
    gone = memory.gone(JOB)
    held: Mapping[str, str] = record or {}
    remembered = tuple(
        (
            applied_branch(change.operation_id, change.transition.retention, held, gone),
            is_superseded(change.operation_id, change.transition.retention, held),
            _values(change.values, numbers),
        )
        for _, change, _ in repeat.writes
    )
    return (repeat.action, repeat.accepted, repeat.age, remembered)
