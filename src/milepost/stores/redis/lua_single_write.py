"""Write the Lua of a single write that moves its record in no index, such as a report of progress.

This code comes first in the script of a batch of one transition type. It reads just the needed fields, decides and issues
the commands, without the functions and tables of the general code. What it does not cover it leaves to the general code
behind it, before it has written anything. Both come from the branches of the transition type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from milepost.core.record_codec import LARGE, short_name
from milepost.core.transitions.change import Branch, Operation, Part, TransitionType
from milepost.stores.redis.lua_branches import INDEXES, BranchWriter, quoted

_GUARDS = {"token", "eq", "ne", "lt", "ge", "has", "lacks", "past", "ahead", "due"}
"""Those that depend on the record alone."""
_OPERATIONS = {"set", "max", "add", "sum", "append", "stamp", "once", "clear"}
_INDEXED = LARGE.union({"stalled", "usage"}, *INDEXES.values())
"""The fields whose change, in an index or in the ledger, is left to the general code."""
_FIRST = 6
"""The position of the first value of the only write in ARGV."""

_OPERATION_IDS = {
    "updates": (
        "update_ops",
        "if {0} and string.find({0}, op, 1, true) then break end",
        "string.sub(({0} or '') .. op .. '{branch}', -63)",
    ),
    **{
        retention: (
            "recent_ops",
            f"if is_superseded({{0}} or '', op, {place}) then break end",
            f"with_run_id({{0}} or '', op, {place})",
        )
        for retention, place in (("reports", 10), ("checkpoints", 18), ("steps", 26))
    },
}
"""How operation ids are kept -> their field, what leaves an applied operation to the general code, and the new value."""


def single_write(transition: TransitionType, width: int) -> str:
    """Return the Lua for a single write with `width` values, empty if the general code has to do all of it."""
    if transition.retention not in _OPERATION_IDS:
        return ""
    ids, is_known, _ = _OPERATION_IDS[transition.retention]
    writers = [_SingleWriter(branch, number, transition.retention) for number, branch in enumerate(transition.branches)]
    if all(writer.body == "break\n" for writer in writers):
        return ""
    reads = sorted({"status", ids}.union(*(writer.reads for writer in writers)))
    written = sorted(set().union(*(writer.written for writer in writers)) - set(reads))
    return "\n".join(
        [
            "repeat",
            f"if ARGV[2] ~= '1' or ARGV[4] ~= '1' or ARGV[{_FIRST + width}] then break end",
            "local id, op, name = ARGV[3], ARGV[5], root .. 'j:' .. ARGV[3]",
            f"local got = redis.pcall('HMGET', name, {', '.join(quoted(short_name(field)) for field in reads)})",
            "if got.err then break end",
            f"local {', '.join(map(_local, reads))} = unpack(got)",
            *([f"local {', '.join(map(_local, written))}"] if written else []),
            f"local status, put, n = {_local('status')}, {{{', '.join(['false'] * _most(writers))}}}, 0",
            is_known.format(_local(ids)),
            *(f"{'else' if n else ''}if {w.condition} then\n{w.body}" for n, w in enumerate(writers)),
            "else break end",
            "until true\n",
        ]
    )


def _local(name: str) -> str:
    return f"f_{name}"


def _most(writers: Sequence[_SingleWriter]) -> int:
    return 2 * max(len(writer.written) for writer in writers)


class _SingleWriter(BranchWriter):
    """One branch of a single write; its body is `break` if the general code has to apply it."""

    def __init__(self, branch: Branch, number: int, retention: str) -> None:
        self.written: set[str] = set()
        self._retention, self._emit = retention, branch.emit
        if any(guard[0] not in _GUARDS for guard in branch.guards):
            branch = Branch(branch.statuses)
        super().__init__(branch, number)

    def _body(self, branch: Branch, number: int) -> Iterator[str]:
        if not branch.event or any(operation[0] not in _OPERATIONS for operation in branch.ops):
            yield "break"
            return
        lines = [line for operation in branch.ops for line in self._operation(operation)]
        if "break" in lines:
            yield "break"
            return
        if "stale" in self.written:
            yield f"local was_stale = {self._field('stale')}"
        yield from lines
        yield from self._commands(branch, number)

    def _commands(self, branch: Branch, number: int) -> Iterator[str]:
        ids, _, new_ids = _OPERATION_IDS[self._retention]
        yield f"local version, event = {self._next_version()}, {self._event_text(branch)}"
        life = "'!' .. version, event, " if branch.keep == "life" else ""
        yield (
            f"redis.call('HSET', name, {quoted(short_name('version'))}, version, {quoted(short_name('updated'))}, this.now, "
            f"{quoted(short_name(ids))}, {new_ids.format(self._field(ids), branch=number)}, {life}unpack(put, 1, n))"
        )
        if "stale" in self.written:
            stale = _local("stale")
            yield f"if {stale} and (not was_stale or #{stale} < #was_stale or #{stale} == #was_stale and {stale} < was_stale) then"
            yield f"redis.call('ZADD', root .. 'stale', {stale}, id) end"
        yield "redis.call('XADD', root .. 'f', '*', 'i', id, 'v', version, 'e', event)"
        # The length is approximate anyway.
        yield "if this.clock % 64 == 0 then redis.call('XTRIM', root .. 'f', 'MAXLEN', '~', '100000') end"
        if branch.keep == "list":
            yield "keep_event(id, version, event)"
        yield f"return this.now .. ' {number}'"

    def _operation(self, operation: Operation) -> Iterator[str]:
        if operation[0] == "clear":
            yield f"if {self._field(str(operation[1]))} then break end"
        else:
            yield from super()._operation(operation)

    def _put(self, name: str, value: str) -> str:
        if name in _INDEXED:
            return "break"
        self.written.add(name)
        field = _local(name)
        put = f"{field} = {value} n = n + 2 put[n - 1], put[n] = {quoted(short_name(name))}, {field}"
        return f"if {field} ~= {value} then {put} end" if name in self._emit else put

    def _put_large(self, name: str, source: str, put: str) -> str:
        return put

    def _field(self, name: str) -> str:
        self.reads.add(name)
        return _local(name)

    def _source(self, source: Part) -> str:
        return f"(ARGV[{_FIRST + source}] or '\\000')" if isinstance(source, int) else super()._source(source)
