"""Write the Lua of the start and of the end of a run, which a worker sends for many jobs at once.

For each record this code comes before the general code, which reads the record. It applies a branch and writes the record
and its indexes without the tables of old values that the general code fills and compares. What it does not cover it
leaves to the general code, before it has written anything. Both come from the branches of the transition type.
"""

from __future__ import annotations

from collections.abc import Iterator

from milepost.core.record_codec import LARGE, LARGE_BYTES, SHORT, short_name
from milepost.core.transitions.change import Branch, Const, Operation, TransitionType
from milepost.stores.redis.lua_branches import INDEXES, LOST, BranchWriter, quoted

_OPERATIONS = {"set", "max", "add", "stamp", "once", "clear", "take"}
_COVERED = "status ready priority not_before labels token lease slot worker started completed"
_LEFT = set().union(*INDEXES.values(), {"stale", "stalled", "usage"}).difference(_COVERED.split())
"""The fields of indexes and of the ledger whose change is left to the general code."""


def run_writes(transition: TransitionType) -> str:
    """Return the Lua for the start or the end of a run, empty if the general code has to do all of it."""
    writers = [_RunWriter(branch, number) for number, branch in enumerate(transition.branches)]
    if transition.retention != "last" or not any(writer.body for writer in writers):
        return ""
    return "".join(
        [
            "if form == 'hash' and fields.c and (not fields.o or string.sub(fields.o, 1, 8) ~= op and (#fields.o < 10 or not stops())) then\n",
            *(f"{'else' if n else ''}if {w.condition} then\n{w.body}" for n, w in enumerate(writers)),
            "end\nend\n",
        ]
    )


class _RunWriter(BranchWriter):
    """One branch; its body is empty if the general code has to apply it."""

    def __init__(self, branch: Branch, number: int) -> None:
        self._needs: list[str] = []
        self._ends = ("stamp", "completed") in branch.ops
        self._always = self._written_always(branch)
        super().__init__(branch, number)

    def _body(self, branch: Branch, number: int) -> Iterator[str]:
        if not self._is_covered(branch):
            return
        lines = [line for operation in branch.ops for line in self._operation(operation) if line]
        if self._ends:
            self._needs += ["not answer", "not fields.z", "not fields.closed", "not holds()"]
            self._needs.append("not (fields.l and string.find(fields.l, ':', 1, true))")
        yield f"if {' and '.join(self._needs)} then"
        yield f"branch, indexes = {number}, indexes or open_indexes()"
        yield "local name, lease, slot, worker = root .. 'j:' .. id, fields.L, fields.S, fields.w"
        if not self._ends:
            places = ", ".join(["false"] * 2 * sum(op[0] != "clear" for op in branch.ops))
            yield f"local put, gone, n, m = {{{places}}}, {{name, false, false, false}}, 0, 1"
        yield from lines
        yield f"local version = {self._next_version()}"
        yield from (self._put("version", "version"), self._put("updated", "this.now"))
        yield self._put("recent_ops", f"op .. '{number}'")
        yield f"local event = {self._event_text(branch)}"
        if not self._ends:
            yield "if answer then"
        yield from self._text(branch)
        if self._ends:
            yield "redis.call('SET', name, text) text = false"
            yield "indexes.ends[#indexes.ends + 1] = id"
            yield "indexes.count_end(fields, this.clock)"
        else:
            yield "end"
            always = ", ".join(f"{quoted(short_name(one))}, {self._field(one)}" for one in sorted(self._always))
            yield f"redis.call('HSET', name, '!' .. version, event, {always}, unpack(put, 1, n))"
            yield "if m > 1 then redis.call('HDEL', unpack(gone, 1, m)) end"
            yield "if claim then claim.take() end"
        yield "indexes.step(id, fields.t, status, fields.s, fields.c)"
        yield "indexes.lease(id, lease, slot, worker, fields.L, fields.S, fields.w)"
        yield "redis.call('XADD', root .. 'f', '*', 'i', id, 'v', version, 'e', event)"
        # The length is approximate anyway.
        yield "if this.clock % 64 == 0 then redis.call('XTRIM', root .. 'f', 'MAXLEN', '~', '100000') end"
        yield "break end"

    def _text(self, branch: Branch) -> Iterator[str]:
        """Yield what sets `text` to that of the record after the branch, at its end with events, as `pack` in record.lua.
        Usual fields come first, in one expression, which creates no texts in between.
        """
        omitted = {
            "created",
            *(str(op[1]) for op in branch.ops if op[0] == "clear"),
            *(["updated"] if self._ends else []),
        }
        parts = ["'c=' .. fields.c"]
        for name, short in SHORT.items():
            if name in self._always - omitted:
                parts += [f"'\\n{short}='", self._field(name)]
            elif name not in omitted:
                parts += [f"({self._field(name)} and '\\n{short}=' or '')", f"({self._field(name)} or '')"]
        yield f"this.usual = this.usual or {{{', '.join(f'{short} = 1' for short in SHORT.values())}}}"
        yield "local usual, others, events = this.usual, '', ''"
        if self._ends:
            yield "local letters = shared(fields)"
            yield "events = '\\n!' .. version .. '=' .. string.gsub(event, '%Z+', letters)"
        yield "for field, value in pairs(fields) do if not usual[field] then"
        yield "if string.byte(field) ~= 33 then others = others .. '\\n' .. field .. '=' .. value"
        if self._ends:
            yield "else events = events .. '\\n' .. field .. '=' .. string.gsub(value, '%Z+', letters)"
        yield "end end end"
        yield f"text = {' .. '.join(parts)} .. others .. events"

    @staticmethod
    def _written_always(branch: Branch) -> set[str]:
        """Return the names of fields that the branch sets whatever the record and the values are."""
        found = {"status", "version", "updated", "recent_ops"}
        for op in branch.ops:
            if op[0] == "take":
                found |= {"token", "lease"}
            elif op[0] == "stamp" and len(op) == 2:
                found.add(str(op[1]))
        return found - {str(op[1]) for op in branch.ops if op[0] == "clear"}

    def _is_covered(self, branch: Branch) -> bool:
        """Return whether the branch moves a record to another status, with a lease before or after, and its position in no
        other index; see `_needs` for what depends on the record.
        """
        cleared: set[str] = set()
        if any(op[0] not in _OPERATIONS for op in branch.ops):
            return False
        for word, *rest in branch.ops:
            name = str(rest[0])
            if name in cleared or name in ("type", "labels", "priority"):
                return False
            if word == "clear":
                cleared.add(name)
            elif name == "ready" or (name in _LEFT and not (word == "set" and isinstance(rest[1], int))):
                return False
        moves = [op[2] for op in branch.ops if op[:2] == ("set", "status")]
        return (
            len(moves) == 1
            and isinstance(moves[0], Const)
            and moves[0] not in LOST
            and branch.event != ""
            and branch.keep == "life"
            and self._ends == ("token" in cleared)
        )

    def _operation(self, operation: Operation) -> Iterator[str]:
        word, name = operation[0], str(operation[1])
        if word == "clear" and name in _LEFT:
            self._needs.append(f"not {self._field(name)}")
        elif word == "clear" and name == "ready":
            self._needs.append(f"{self._field(name)} == (claim and claim.queue or nil)")
            yield self._put(name, "nil")
        elif word == "clear":
            if name in LARGE:
                self._needs.append(f"not {self._field(name)}")
            yield self._put(name, "nil")
        elif word == "set" and name in _LEFT:
            self._needs.append(f"{self._source(operation[2])} == '\\000'")
        else:
            yield from super()._operation(operation)

    def _put(self, name: str, value: str) -> str:
        field = self._field(name)
        if value == "nil":
            return f"if {field} then {'' if self._ends else f'm = m + 1 gone[m] = {quoted(short_name(name))} '}{field} = nil end"
        if self._ends or name in self._always:
            return f"{field} = {value}"
        put = f"{field} = {value} n = n + 2 put[n - 1], put[n] = {quoted(short_name(name))}, {field}"
        return f"if {field} ~= {value} then {put} end" if value.startswith("'") else put

    def _put_large(self, name: str, source: str, put: str) -> str:
        self._needs += [f"not {self._field(name)}", f"#{source} <= {LARGE_BYTES}"]
        return put
