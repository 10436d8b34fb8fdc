"""Write the Lua of a batch that only creates records of one shape, such as a submit.

This code comes first in the script of a batch of one transition type. It writes each record with one HSET, and each index
once for all of them, without the functions and tables of the general code. What it does not cover it leaves to the
general code behind it, before it has written anything. Both come from the branch of the transition type.
"""

from __future__ import annotations

from collections.abc import Iterator

from milepost.core.record_codec import LARGE, LARGE_BYTES, short_name
from milepost.core.transitions.change import Branch, Const, Part, TransitionType
from milepost.stores.redis.lua_branches import INDEXES, BranchWriter, quoted

_INDEXED = {"status", "type", "ready", "priority", "labels", "slot", "worker"}
"""The fields of indexes that this code writes, and two that are in an index only with a lease."""
_LEFT = set().union(*INDEXES.values(), {"stale", "stalled", "usage"}) - _INDEXED
"""The other fields of indexes; a shape with one of them is left to the general code."""


def new_records(transition: TransitionType, width: int) -> str:
    """Return the Lua for a batch of records with `width` values each, empty if the general code has to create them."""
    if len(transition.branches) != 1 or transition.retention != "callers":
        return ""
    (branch,) = transition.branches
    are_covered = all(
        op[:2] == ("stamp", "created") or (op[0] == "set" and isinstance(op[2], (int, Const)) and op[1] not in _LEFT)
        for op in branch.ops
    )
    is_covered = (
        branch.statuses == ("",)
        and [guard[0] for guard in branch.guards] == ["unique"]  # of a key, which is not covered
        and {"created", "status", "type", "ready"} <= {op[1] for op in branch.ops if len(op) > 1}
        and branch.keep == "life"
    )
    return "".join(f"{line}\n" for line in _NewRecord(branch, width).lines()) if are_covered and is_covered else ""


class _NewRecord(BranchWriter):
    """The branch of a creation. Its `reads` and `body` are not used: there is no record to read."""

    def __init__(self, branch: Branch, width: int) -> None:
        self._branch, self._stride = branch, 3 + width
        self._values: dict[str, str] = {}
        super().__init__(branch, 0)

    def _body(self, branch: Branch, number: int) -> Iterator[str]:
        for operation in branch.ops:
            self._values[str(operation[1])] = "now" if operation[0] == "stamp" else self._source(operation[2])
        yield from ()

    def lines(self) -> Iterator[str]:
        """Yield the code."""
        loop = f"for at = 3, last, {self._stride} do local id = ARGV[at]"
        yield "repeat"
        yield from self._checks(loop)
        yield "local now, text, listed, queued, n = this.now, nil, {}, {}, 0"
        yield loop
        yield "if at > 3 then this.clock = this.clock + 1 now = string.format('%d', this.clock) end"
        yield from self._record()
        yield "end"
        yield from self._indexes()
        yield "if answer then return {now, {{0, text, 0, false}}} end"
        yield "return now .. ' 0'"
        yield "until true"

    def _checks(self, loop: str) -> Iterator[str]:
        """Yield what leaves a batch to the general code: other writes or a claim in the script, missing or large values,
        several queues, ids that are not new, and draining leases.
        """
        places = [place for place in self._values.values() if place.startswith("ARGV")]
        wrong = [f"{place} == '\\000'" for place in places]
        wrong += [f"#{self._values[name]} > {LARGE_BYTES}" for name in sorted(LARGE & self._values.keys())]
        if labels := self._values.get("labels"):
            wrong.append(f"string.find({labels}, ':', 1, true)")
        yield f"local many = tonumber(ARGV[2]) local last = {self._stride} * many"
        yield "if many == 0 or not ARGV[last + 2] or ARGV[last + 3] or #this.now ~= 16 then break end"
        yield "local at, answer, known, seen = 3, ARGV[4] == '1!:', {root .. 's'}, {}"
        yield f"local queue, list = {self._values['ready']}, {self._list()}"
        yield "if answer and many > 1 or queue == '' or string.find(queue, '\\31', 1, true) then break end"
        yield loop
        yield f"if seen[id] or ARGV[at + 1] ~= '1' and not answer or {' or '.join(wrong)}"
        yield f"or {self._values['ready']} ~= queue or {self._list()} ~= list then known = nil break end"
        yield "seen[id] = true known[#known + 1] = root .. 'j:' .. id known[#known + 1] = root .. 'x:' .. id end"
        yield "if not known or redis.call('EXISTS', unpack(known)) > 0 then break end"

    def _record(self) -> Iterator[str]:
        """Yield what writes one record and its event, and remembers its entries in indexes."""
        stored = {"created": "now", "updated": "now", "version": "'1'", "created_by_op": "ARGV[at + 2]", **self._values}
        pairs = [f"{quoted(short_name(name))}, {value}" for name, value in stored.items()]
        lines = [f"{quoted(f'{chr(10)}{short_name(name)}=')} .. {value}" for name, value in stored.items()]
        yield f"local status, event = '', {self._event_text(self._branch).replace('this.now', 'now')}"
        yield f"redis.call('HSET', root .. 'j:' .. id, {', '.join(pairs)}, '!1', event)"
        yield "redis.call('XADD', root .. 'f', '*', 'i', id, 'v', '1', 'e', event)"
        yield f"if answer then text = string.sub({' .. '.join(lines)}, 2) end"
        yield "n = n + 2 listed[n - 1], listed[n] = now, id"
        priority = self._values.get("priority")
        rank = f"0 - (tonumber({priority}) or 0)" if priority else "'0'"
        yield f"queued[n - 1], queued[n] = {rank}, now .. ':' .. id"
        if labels := self._values.get("labels"):
            yield f"for pair in string.gmatch({labels}, '[^\\31]+') do redis.call('ZADD', root .. 'l:' .. pair, now, id) end"

    def _indexes(self) -> Iterator[str]:
        """Yield what writes the entries of all records, as `place`, `offer` and `flush` of indexes.lua."""
        yield "this.now = now"
        yield "redis.call('ZADD', root .. 'i:' .. list, unpack(listed))"
        yield "redis.call('SADD', root .. 't', list)"
        yield "redis.call('ZADD', root .. 'q:' .. queue, unpack(queued))"
        yield "local plain = string.match(queue, '^(.-)@')"
        yield "if plain then redis.call('SADD', root .. 'plain:' .. plain, queue) end"
        yield "announce(queue, many)"
        # The length is approximate anyway.
        yield "if this.clock % 64 < many then redis.call('XTRIM', root .. 'f', 'MAXLEN', '~', '100000') end"

    def _list(self) -> str:
        return f"{self._values['type']} .. ':' .. {self._values['status']}"

    def _field(self, name: str) -> str:
        return self._values.get(name, "nil")

    def _source(self, source: Part) -> str:
        return f"ARGV[at + {3 + source}]" if isinstance(source, int) else super()._source(source)
