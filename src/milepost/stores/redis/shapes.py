"""Shapes as the server runs them: their cases, written in Lua and set into `statements/apply.lua`, so that nothing is
interpreted or decoded there. Owns that writing; sends nothing.

A shape by itself has a script of its own, the same in every process. Batches of several shapes share one script that has
all the shapes which this process has ever mixed: it grows a few times and then stays.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from milepost.core.change import Case, Guard, Op, Shape, Src
from milepost.core.packing import short
from milepost.stores.redis.scripts import Script, script_of_cases

NONE = b"\0"
"""A value that is missing; no text of a record has a NUL."""

_INDEXES = {
    "l": {"status", "type"},
    "q": {"queue", "not_before", "priority"},
    "d": {"not_after", "started", "completed"},
    "L": {"token", "lease", "slot", "worker"},
    "a": {"labels"},
    "k": {"unique_key"},
    "e": {"completed"},
}
"""Index, by its letter in `statements/indexes.lua` -> the fields whose change may move a record in it."""

_READS = {
    "l": {"status", "type", "created"},
    "q": {"queue", "not_before", "priority", "created", "unique_key"},
    "d": {"not_after", "started", "completed"},
    "L": {"lease", "slot", "worker"},
    "a": {"labels", "created"},
    "k": {"unique_key", "created"},
    "e": {"completed"},
}
"""Index -> the fields that say where a record stands in it."""


class Compiled(NamedTuple):
    """A shape in Lua: its cases, and what stands about it in the head of a script."""

    name: str
    width: int
    """How many values are sent: up to the last that a case names."""
    about: str
    cases: str
    grows: bool
    """Whether it makes records, which a full server refuses."""


Numbers = dict[Shape, tuple[int, int]]


class Compiler:
    """Writes each shape once. Shapes are told apart by identity, which is why it keeps them. Safe for threads."""

    KEPT = 1000
    """Shapes are constants, so this bounds only programs that make them up as they go."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Shape, Compiled] = {}
        self._alone: dict[Shape, tuple[Script, Numbers]] = {}
        self._mixed: Numbers = {}
        self._mixture: dict[bool, Script] = {}

    def compiled(self, shape: Shape) -> Compiled:
        """A shape in Lua."""
        found = self._known.get(shape)
        if found is None:
            if len(self._known) >= self.KEPT:
                self._known, self._alone = {}, {}
            found = self._known[shape] = compile_shape(shape)
        return found

    def script(self, shapes: Sequence[Shape]) -> tuple[Script, Numbers]:
        """The script for a batch of these shapes, and the number and the width of each in it."""
        shape = shapes[0]
        if shapes.count(shape) == len(shapes):
            alone = self._alone.get(shape)
            if alone is None:
                compiled = self.compiled(shape)
                alone = self._alone[shape] = _script([compiled]), {shape: (1, compiled.width)}
            return alone
        wanted = dict.fromkeys(shapes)
        with self._lock:
            if not wanted.keys() <= self._mixed.keys():
                kept = () if len(self._mixed) >= self.KEPT else tuple(self._mixed)
                several = sorted({*kept, *wanted}, key=lambda shape: (shape.name, self.compiled(shape)))
                self._mixed = {shape: (number, self.compiled(shape).width) for number, shape in enumerate(several, 1)}
                self._mixture = {}
            grows = any(self.compiled(shape).grows for shape in wanted)
            if grows not in self._mixture:
                self._mixture[grows] = _script([self.compiled(shape) for shape in self._mixed], grows=grows)
            return self._mixture[grows], self._mixed


def compile_shape(shape: Shape) -> Compiled:
    """Write a shape."""
    width = 1 + max((part for case in shape.cases for part in _places(case)), default=-1)
    writers = [_Writer(case, number) for number, case in enumerate(shape.cases)]
    reads = {"status", "version", "ops"}.union(*(writer.reads for writer in writers))
    mortal = any("" in case.statuses or ("remove",) in case.ops for case in shape.cases)
    if mortal:
        reads.add("born")
    fields = ", ".join(_quoted(short(name)) for name in sorted(reads))
    about = f"{width}, {_bool(any(map(_needs_all, shape.cases)))}, {_bool(mortal)}, {{{fields}}}"
    cases = "".join(f"{'if' if not n else 'elseif'} {w.condition} then\n{w.body}" for n, w in enumerate(writers))
    grows = any("" in case.statuses and case.event for case in shape.cases)
    return Compiled(shape.name, width, about, f"{cases}end\n" if cases else "", grows)


def _script(shapes: list[Compiled], *, grows: bool | None = None) -> Script:
    about = "".join(f"if shape == {number} then return {c.about} end\n" for number, c in enumerate(shapes, 1))
    cases = "else".join(f"if shape == {number} then\n{c.cases}" for number, c in enumerate(shapes, 1)) + "end\n"
    return script_of_cases(
        f"local function about(shape)\n{about}end\n", cases, grows=shapes[0].grows if grows is None else grows
    )


def _places(case: Case) -> Iterator[int]:
    """The places of the values that a case names."""
    for words in (*case.guards, *case.ops, (case.data,)):
        yield from (part for part in words if isinstance(part, int))


def _needs_all(case: Case) -> bool:
    """Whether the record may come to rest, or leave it, or go: then it is written anew."""
    return any(
        op[0] in ("stop", "remove", "drop")
        or (op[0] == "clear" and op[1] == "token")
        or (op[0] != "take" and op[1] in ("completed", "created", "type"))
        for op in case.ops
    ) and case.statuses != ("",)


class _Writer:
    """One case in Lua: `condition`, `body`, and the fields that it `reads`."""

    def __init__(self, case: Case, number: int) -> None:
        self.reads: set[str] = set()
        self._touched: set[str] = set()
        statuses = " or ".join(f"status == {_quoted(status)}" for status in case.statuses) or "false"
        self.condition = " and ".join([f"({statuses})", *map(self._guard, case.guards)])
        lines = [f"case = {number}", *(line for op in case.ops for line in self._op(op)), *self._event(case)]
        touched = [letter for letter, names in _INDEXES.items() if names & self._touched]
        if "" in self._touched and "q" not in touched:
            touched.append("q")
        for letter in touched:
            self.reads |= _READS[letter]
        self.reads |= self._touched & {"stale", "stalled"}
        if any(op[0] != "clear" and op[1:2] == ("stalled",) for op in case.ops):
            self.reads.add("created")
        lines.append(f"touched = '{''.join(touched)}'")
        self.body = "\n".join(lines) + "\n"

    # --- guards ---

    def _guard(self, guard: Guard) -> str:
        """The condition of a guard."""
        word, *rest = guard
        if word in ("token", "stopping", "overdue"):
            wanted = self._source(rest[0])
            if word == "token":
                return f"({self._field('token')} or '') ~= '' and {self._field('token')} == {wanted}"
            return f"is_stopping(id, {wanted}, {_bool(word == 'overdue')})"
        if word == "free":
            key = self._field("unique_key")
            return f"not parked(id, {key} ~= '' and {key} or key)"
        if word == "unique":
            statuses = "|" + "".join(f"{status}|" for status in str(rest[0]).split())
            return f"not is_taken(id, key or {self._field('unique_key')}, {_quoted(statuses)})"
        field = self._field(str(rest[0]))
        if word in ("eq", "ne", "lt", "ge"):
            source = self._source(rest[1])
            holds = (
                f"({field} or '') {'==' if word == 'eq' else '~='} ({source} or '')"
                if word in ("eq", "ne")
                else f"(tonumber({field}) or 0) {'<' if word == 'lt' else '>='} (tonumber({source}) or 0)"
            )
            return f"({source} == '\\000' or {holds})" if isinstance(rest[1], int) else holds
        number = f"(tonumber({field}) or 0)"
        return {
            "has": f"{field} ~= nil",
            "lacks": f"{field} == nil",
            "past": f"({field} ~= nil and {number} <= this.clock)",
            "ahead": f"({field} == nil or {number} > this.clock)",
            "due": f"({field} == nil or {number} <= this.clock)",
        }[str(word)]

    # --- operations ---

    def _op(self, op: Op) -> Iterator[str]:
        word, *rest = op
        name = str(rest[0]) if rest else ""
        match word:
            case "stop":
                token, lease = self._field("token"), self._field("lease")
                self.reads |= {"slot", "worker", "unique_key"}
                self._touched.add("")
                yield f"if ({token} or '') ~= '' then stop_token, stop_expires = {token}, {lease} or '0' end"
                yield from (self._put("token", "nil"), self._put("lease", "nil"))
            case "drop" | "remove":
                self.reads |= {"slot", "worker", "unique_key"}
                self._touched.add("")
                yield f"{word} = true"
            case "take":
                nonce, micros = (self._source(part) for part in rest)
                yield "fence = math.max((fence or tonumber(redis.call('GET', root .. 'fence') or 0)) + 1, this.clock)"
                yield self._put("token", f"string.format('%d', fence) .. ':' .. ({nonce} or '')")
                yield self._put("lease", f"string.format('%d', this.clock + (tonumber({micros}) or 0))")
            case "clear":
                self._field(name)  # read, so that only what is there is deleted
                yield self._put(name, "nil")
            case "roll":
                into, source = str(rest[1]), self._source(rest[2])
                self._field(into)  # read, so that it is known what is overwritten
                yield f"if #({self._field(name)} or '') >= tonumber({source}) then"
                yield from (self._put(into, self._field(name)), self._put(name, "nil"), "end")
            case "once":
                yield f"if {self._field(name)} == nil then {self._put(name, 'this.now')} end"
            case "sum":
                terms = " + ".join(f"(tonumber({self._source(part)}) or 0)" for part in rest[1:])
                yield self._put(name, f"string.format('%d', {terms})")
            case "stamp" if len(rest) == 1:
                yield self._put(name, "this.now")
            case _:
                yield from self._with_source(str(word), name, rest[1])

    def _with_source(self, word: str, name: str, src: Src) -> Iterator[str]:
        """An operation that does nothing without its source."""
        source = self._source(src)
        field = self._field(name) if word in ("max", "add", "append") else ""
        put = self._put(
            name,
            {
                "set": source,
                "max": source,
                "add": f"string.format('%d', (tonumber({field}) or 0) + {source})",
                "append": f"({field} or '') ~= '' and {field} .. ',' .. {source} or {source}",
                "stamp": f"string.format('%d', this.clock + {source})",
            }[word],
        )
        needs = [f"{source} ~= '\\000'"] if isinstance(src, int) else [source] if src.startswith(".") else []
        if word == "max":
            needs.append(f"not (({field} or '') ~= '' and tonumber({field}) >= tonumber({source}))")
        yield f"if {' and '.join(needs)} then {put} end" if needs else put

    def _put(self, name: str, value: str) -> str:
        self._touched.add(name)
        field, old = _place("fields", name), _place("old", name)
        return f"if {old} == nil then {old} = {field} or false end {field} = {value}"

    # --- the event ---

    def _event(self, case: Case) -> Iterator[str]:
        if not case.event:
            return
        self.reads.update(case.emit)
        yield f"version = string.format('%d', (tonumber({self._field('version')}) or 0) + 1)"
        yield from (self._put("version", "version"), self._put("updated", "this.now"))
        parts = [f"(fields.s == {_quoted(case.event)} and '' or {_quoted(case.event)})", "'\\000'", "this.now"]
        for name in case.emit:
            field = _place("fields", name)
            parts.append(f"(({field} or '') ~= '' and {_quoted(chr(0) + short(name) + '=')} .. {field} or '')")
        if case.data is not None:
            value = self._source(int(case.data))
            parts.append(f"({value} ~= '\\000' and '\\000data=' .. {value} or '')")
        yield f"event, kept = {' .. '.join(parts)}, {_quoted(case.keep)}"
        if case.keep == "life":
            yield "old['!' .. version] = false fields['!' .. version] = event"

    # --- sources ---

    def _field(self, name: str) -> str:
        self.reads.add(name)
        return _place("fields", name)

    def _source(self, source: Src) -> str:
        """A source in Lua."""
        if isinstance(source, int):
            return f"ARGV[first + {source}]"
        return self._field(source[1:]) if source.startswith(".") else _quoted(source[1:])


def _place(table: str, name: str) -> str:
    return f"{table}[{_quoted(short(name))}]"


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _quoted(text: str) -> str:
    """A text as Lua writes it."""
    escaped = (
        text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\000")
    )
    return f"'{escaped}'"
