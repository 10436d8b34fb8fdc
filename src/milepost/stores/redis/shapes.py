"""Shapes as the scripts take them: one flat JSON array with short field names, the values that count, the fields that are
read and the indexes that are touched. Owns that form (`statements/apply.lua` says what it is); sends nothing.

A value of None makes an operation a no-op and a guard hold, so what names one is left out when a shape is compiled:
once for each shape and each pattern of missing values, of which there are few.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from milepost.core.change import Case, Change, Guard, Op, Shape, Src, Value
from milepost.core.packing import short

_NEVER = "="
"""An empty text: no token is empty, so a guard on one without a value never holds."""

_INDEXES = {
    "l": {"status", "type"},
    "q": {"queue", "not_before", "priority"},
    "d": {"not_after", "token", "completed"},
    "L": {"token", "lease", "slot", "worker"},
    "a": {"labels"},
    "S": {"stalled"},
    "k": {"unique_key"},
    "s": {"stale"},
    "e": {"completed"},
}
"""Index, by its letter -> the fields whose change may move a record in it."""

_READS = {
    "l": {"status", "type", "created"},
    "q": {"queue", "not_before", "priority", "created", "unique_key"},
    "d": {"not_after", "token", "completed"},
    "L": {"lease", "slot", "worker"},
    "a": {"labels", "created"},
    "S": {"stalled", "created"},
    "k": {"unique_key", "created"},
    "s": {"stale"},
    "e": {"completed"},
}
"""Index -> the fields that say where a record stands in it."""

Words = list[int | str]


class Compiled(NamedTuple):
    """A shape for one pattern of missing values."""

    text: bytes
    """JSON for the script."""
    places: tuple[int, ...]
    """The places of the values to send."""
    grows: bool
    """Whether it makes records, which a full server refuses."""


class Compiler:
    """Compiles each shape once. Shapes are told apart by identity, which is why it keeps them."""

    KEPT = 2000
    """Shapes are constants, so this bounds only programs that make them up as they go."""

    def __init__(self) -> None:
        self._known: dict[tuple[Shape, bytes], Compiled] = {}

    def compiled(self, change: Change) -> Compiled:
        """The form of a change's shape in which its values are there or missing."""
        key = (change.shape, bytes([value is None for value in change.values]))
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= self.KEPT:
                self._known.clear()
            found = self._known[key] = compile_shape(change.shape, change.values)
        return found


def compile_shape(shape: Shape, values: Sequence[Value]) -> Compiled:
    """Write a shape for values of which some are None."""
    places = tuple(place for place, value in enumerate(values) if value is not None)
    numbers = {place: number for number, place in enumerate(places)}
    reads = {"status", "version", "born", "ops"}
    cases = [_case(case, numbers, reads) for case in shape.cases]
    whole = any(_needs_all(case) for case in shape.cases)
    comes_or_goes = any("" in case.statuses or ("remove",) in case.ops for case in shape.cases)
    words: Words = [len(places), int(whole), int(comes_or_goes), len(reads), *(short(name) for name in sorted(reads))]
    for case in cases:
        words += [len(words) + 1 + len(case) + 1, *case]
    text = json.dumps(words, ensure_ascii=False, separators=(",", ":"))
    return Compiled(text.encode(), places, any("" in case.statuses and case.event for case in shape.cases))


def _needs_all(case: Case) -> bool:
    """Whether the record may come to rest, or leave it, or go: then it is written anew."""
    return any(
        op[0] in ("stop", "remove", "drop")
        or (op[0] == "clear" and op[1] == "token")
        or (op[0] != "take" and op[1] in ("completed", "created", "type"))
        for op in case.ops
    ) and case.statuses != ("",)


def _case(case: Case, numbers: dict[int, int], reads: set[str]) -> Words:
    """A case, all but where the next one begins."""
    guards = [guard for wanted in case.guards if (guard := _guard(wanted, numbers, reads))]
    ops, touched = _ops(case, numbers, reads)
    indexes = [index for index, names in _INDEXES.items() if names & touched or (index == "q" and "" in touched)]
    for index in indexes:
        reads |= _READS[index]
    emits = case.emit if case.event else ()
    reads.update(emits)
    data = numbers.get(int(case.data), -1) if case.data is not None else -1
    return [
        "|" + "".join(f"{status}|" for status in case.statuses),
        "".join(indexes),
        case.event,
        case.keep,
        data,
        len(emits),
        *(short(name) for name in emits),
        len(guards),
        *(word for guard in guards for word in guard),
        *(word for op in ops for word in op),
    ]


def _guard(guard: Guard, numbers: dict[int, int], reads: set[str]) -> Words | None:
    """A guard as word, field and source; None when it holds whatever the record."""
    word, *rest = guard
    if word in ("token", "stopping", "overdue"):
        reads.add("token")
        source = _source(rest[0], numbers, reads)
        return [word, "", _NEVER if source is None else source]
    if word in ("free", "unique"):
        reads.add("unique_key")
        return [word, "", "|" + "".join(f"{status}|" for part in rest for status in str(part).split())]
    field = str(rest[0])
    reads.add(field)
    source = _source(rest[1], numbers, reads) if len(rest) > 1 else _NEVER
    return None if source is None else [word, short(field), source]


def _ops(case: Case, numbers: dict[int, int], reads: set[str]) -> tuple[list[Words], set[str]]:
    """The operations that do something, and the fields that they change ("" for the stopping leases)."""
    written: list[Words] = []
    touched: set[str] = set()
    cleared: list[str] = []
    for op in (*case.ops, ("",)):
        word, *rest = op
        if word != "clear" and cleared:
            written.append(["clear", len(cleared), *cleared])
            cleared = []
        match word:
            case "take":
                touched |= {"token", "lease"}
                written.append([word, *(_NEVER if s is None else s for s in (_source(p, numbers, reads) for p in rest))])
            case "stop" | "drop" | "remove":
                touched |= {"token", "lease", ""} if word == "stop" else {""}
                reads |= {"token", "lease", "slot", "worker", "unique_key"}
                written.append([word, "", ""])
            case "clear":
                touched.add(str(rest[0]))
                cleared.append(short(str(rest[0])))
            case "":
                pass
            case _:
                line = _writes(op, numbers, reads)
                if line is not None:
                    touched.add(str(rest[0]))
                    written.append(line)
    return written, touched


def _writes(op: Op, numbers: dict[int, int], reads: set[str]) -> Words | None:
    """An operation on one field; None when it does nothing."""
    word, field, *sources = op
    if word in ("max", "add", "append", "once"):
        reads.add(str(field))
    placed = [_source(source, numbers, reads) for source in sources or ("=0",)]
    if word == "sum":
        placed = ["=0" if source is None else source for source in placed]
    if None in placed:
        return None
    return [word, short(str(field)), *(source for source in placed if source is not None)]


def _source(source: Src, numbers: dict[int, int], reads: set[str]) -> Src | None:
    """A source as the script takes it; None for a value that is missing."""
    if isinstance(source, int):
        return numbers.get(source)
    if source.startswith("."):
        reads.add(source[1:])
        return "." + short(source[1:])
    return source
