"""Write the branches of a transition type in Lua, and other parts of Lua as text, for `lua_compiler`."""

from __future__ import annotations

from collections.abc import Iterator

from milepost.core.placement import BLAME_BYTES, BLAME_ENDS, BLAME_OTHER
from milepost.core.record_codec import LARGE, LARGE_BYTES, short_name
from milepost.core.transitions.change import Branch, Const, Field, Guard, Operation, Part
from milepost.core.transitions.operations import ENTRIES_BYTES
from milepost.core.transitions.table import LOST_PARENT


def place(table: str, name: str) -> str:
    """Return the place of a field in a table."""
    return f"{table}[{quoted(short_name(name))}]"


def failed_member(words: Part) -> str:
    """Return the call that finds a member of an awaited group in one of these statuses."""
    return f"groups().failed_member(fields, {statuses(words)})"


def statuses(words: Part) -> str:
    """Return statuses, separated by spaces, as Lua text between bars."""
    return quoted("|" + "".join(f"{status}|" for status in str(words).split()))


def boolean(value: bool) -> str:
    """Return a bool."""
    return "true" if value else "false"


def quoted(text: str) -> str:
    """Return a text as a Lua string literal."""
    escaped = (
        text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\000")
    )
    return f"'{escaped}'"


_ENDS = ", ".join(f"[{quoted(status)}] = {quoted(words)}" for status, words in BLAME_ENDS.items())
_BLAME = f"groups().blame(failed, {{{_ENDS}}}, {quoted(BLAME_OTHER)}, {BLAME_BYTES})"
"""The words on the member `failed`."""
_START = ("held", "wait_groups", "wake_at", "not_before")
"""The arguments of `starts_at`."""
_AWAITED = {"wait_groups", "suspended", "labels", "on_failure"}
"""What `groups().open_group` and `groups().failed_member` read."""
INDEXES = {
    "l": {"status", "type"},
    "q": {"ready", "priority", *_START},
    "g": {"labels", "completed", "closed"},
    "h": {"held"},
    "d": {"not_after", "started", "completed"},
    "L": {"token", "lease", "slot", "worker"},
    "a": {"labels"},
    "k": {"unique_key"},
    "e": {"completed"},
}
"""Index, by its letter in `indexes.lua` -> the fields whose change may move a record in it."""

_READS = {
    "l": {"status", "type", "created"},
    "q": {"ready", "priority", "created", "unique_key", *_START},
    "g": {"labels", "completed", "closed", "status", "created", "child_key"},
    "h": {"held", "created"},
    "d": {"not_after", "started", "completed"},
    "L": {"lease", "slot", "worker"},
    "a": {"labels", "created"},
    "k": {"unique_key", "created"},
    "e": {"completed"},
}
"""Index -> the fields that determine the position of a record in it."""

LOST = tuple(map(Const, LOST_PARENT.split()))


class BranchWriter:
    """One branch in Lua: `condition`, `body`, and the fields that it `reads`."""

    def __init__(self, branch: Branch, number: int) -> None:
        self.reads: set[str] = set()
        self._touched: set[str] = set()
        is_of_status = " or ".join(f"status == {quoted(status)}" for status in branch.statuses) or "false"
        self.condition = " and ".join([f"({is_of_status})", *map(self._guard, branch.guards)])
        self.body = "".join(f"{line}\n" for line in self._body(branch, number))

    def _body(self, branch: Branch, number: int) -> Iterator[str]:
        yield f"branch = {number}"
        for operation in branch.ops:
            yield from self._operation(operation)
        yield from self._event(branch)
        touched = [letter for letter, names in INDEXES.items() if names & self._touched]
        if "" in self._touched and "q" not in touched:
            touched.append("q")
        for letter in touched:
            self.reads |= _READS[letter]
        self.reads |= self._touched & {"stale", "stalled", "usage"}
        if any(operation[0] != "clear" and operation[1:2] == ("stalled",) for operation in branch.ops):
            self.reads.add("created")
        if any(op[:2] == ("set", "status") and op[2] in LOST for op in branch.ops):
            yield "fails = true"
        yield f"touched = '{''.join(touched)}'"

    # --- guards ---

    def _guard(self, guard: Guard) -> str:
        """Return the Lua condition of a guard."""
        word, *rest = guard
        if word in ("token", "stopping", "overdue"):
            wanted = self._source(rest[0])
            if word == "token":
                return f"({self._field('token')} or '') ~= '' and {self._field('token')} == {wanted}"
            return f"is_stopping(id, {wanted}, {boolean(word == 'overdue')})"
        if word == "free":
            key = self._field("unique_key")
            return f"not parked(id, {key} ~= '' and {key} or key)"
        if word == "unique":
            return f"not is_taken(id, key or {self._field('unique_key')}, {statuses(rest[0])})"
        if word == "value":
            return "redis.call('HGET', root .. 'h:' .. {}, 'v') == {}".format(*map(self._source, rest))
        if word == "known":
            return f"groups().known({self._source(rest[0])})"
        if word == "leased":
            return f"groups().leased({self._source(rest[0])}, {self._source(rest[1])})"
        if word == "joinable":
            return f"groups().joinable({', '.join(map(self._source, rest))})"
        if word in ("orphan", "parented"):
            self.reads |= {"child_key", "detached", "labels"}
            orphan = f"(fields.child_key ~= nil and groups().is_orphan(fields, {statuses(rest[0])}))"
            return orphan if word == "orphan" else f"not {orphan}"
        if word in ("open", "failed"):
            self.reads |= _AWAITED
            return "groups().open_group(fields)" if word == "open" else failed_member(rest[0])
        if word == "startable":
            return f"(starts_at({', '.join(map(self._field, _START))}) or math.huge) <= this.clock"
        field = self._field(str(rest[0]))
        if word in ("eq", "ne", "lt", "ge"):
            source = self._source(rest[1])
            if word == "eq" and isinstance(rest[1], Const) and rest[1].text:
                return f"{field} == {source}"
            holds = (
                f"({field} or '') {'==' if word == 'eq' else '~='} ({source} or '')"
                if word in ("eq", "ne")
                else f"(tonumber({field}) or 0) {'<' if word == 'lt' else '>='} (tonumber({source}) or 0)"
            )
            return f"({source} == '\\000' or {holds})" if isinstance(rest[1], int) else holds
        number = f"(tonumber({field}) or 0)"
        return {
            "has": field,
            "lacks": f"not {field}",
            "past": f"({field} and {number} <= this.clock)",
            "ahead": f"(not {field} or {number} > this.clock)",
            "due": f"(not {field} or {number} <= this.clock)",
        }[str(word)]

    # --- operations ---

    def _operation(self, operation: Operation) -> Iterator[str]:
        word, *rest = operation
        name = str(rest[0]) if rest else ""
        match word:
            case "stop":
                token, lease = self._field("token"), self._field("lease")
                self.reads |= {"slot", "worker", "unique_key", "labels", "child_key"}
                self._touched.add("")
                yield f"if ({token} or '') ~= '' then stop_token, stop_expires = {token}, {lease} or '0' end"
                yield from (self._put("token", "nil"), self._put("lease", "nil"))
            case "put":
                yield "values = values or {}"
                yield "values[#values + 1], values[#values + 2] = {}, {}".format(*map(self._source, rest))
            case "erase":
                yield "values = values or {}"
                yield f"for key in string.gmatch({self._source(rest[0])}, '[^%z\\31]+') do"
                yield "values[#values + 1], values[#values + 2] = key, false end"
            case "gate":
                key, micros = map(self._source, rest)
                yield _change_limit("close_gate", key, f"this.clock + tonumber({micros})")
            case "unstart":
                slot, started = self._field("slot"), self._source(rest[0])
                change = _change_limit("return_start", f"string.match({slot}, '^[^\\31]*')", f"tonumber({started})")
                yield f"if ({slot} or '') ~= '' and {started} then {change} end"
            case "drop" | "remove":
                self.reads |= {"slot", "worker", "unique_key"}
                self._touched.add("")
                yield f"{word} = true"
            case "take":
                nonce, micros = (self._source(part) for part in rest)
                yield "fence = math.max((fence or tonumber(redis.call('GET', root .. 'fence') or 0)) + 1, this.clock)"
                number = "(fence == this.clock and this.now or string.format('%d', fence))"
                yield self._put("token", f"{number} .. ':' .. ({nonce} or '')")
                yield self._put("lease", f"string.format('%d', this.clock + (tonumber({micros}) or 0))")
            case "clear":
                field = self._field(name)  # read, so that only an existing field is deleted
                if name in LARGE:
                    yield f"if {field} then apart = apart or {{}} {place('apart', name)} = false end"
                yield self._put(name, "nil")
            case "hold":
                self.reads |= _AWAITED
                yield f"local group = groups().open_group(fields) or {failed_member(name)}"
                yield self._put("held", "group")
                self._field("stale")
                check = self._field("cycle_check")
                at = f"{check} and string.format('%d', this.clock + {check}) or nil"
                yield f"if group then {self._put('stale', at)} end"
            case "blame":
                self.reads |= _AWAITED
                field = str(rest[1])
                self._field(name)
                self._field(field)
                yield f"local _, failed = {failed_member(rest[2])}"
                yield f"if failed then {self._put(name, _BLAME)} {self._put(field, 'failed')} end"
            case "entry":
                parts = [f"({self._source(part)} or '')" for part in rest[1:]]
                yield f"if {parts[0]} ~= '' and {parts[0]} ~= '\\000' then"
                line = " .. '\\31' .. ".join(f"string.gsub({part}, '^%z$', '')" for part in parts)
                yield f"local lines = ({self._field(name)} or '') ~= '' and {self._field(name)} .. '\\30' or ''"
                yield f"lines = lines .. {line}"
                yield f"while #lines > {ENTRIES_BYTES} do lines = string.match(lines, '\\30(.*)$') or '' end"
                yield from (self._put(name, "lines"), "end")
            case "roll":
                into, source = str(rest[1]), self._source(rest[2])
                self._field(into)  # read, so that the overwritten value is known
                yield f"if #({self._field(name)} or '') >= tonumber({source}) then"
                yield from (self._put(into, self._field(name)), self._put(name, "nil"), "end")
            case "once":
                yield f"if not {self._field(name)} then {self._put(name, 'this.now')} end"
            case "sum":
                terms = " + ".join(f"(tonumber({self._source(part)}) or 0)" for part in rest[1:])
                yield self._put(name, f"string.format('%d', {terms})")
            case "stamp" if len(rest) == 1:
                yield self._put(name, "this.now")
            case _:
                yield from self._with_source(str(word), name, rest[1])

    def _with_source(self, word: str, name: str, src: Part) -> Iterator[str]:
        """Yield the Lua of an operation that does nothing without its source."""
        source = self._source(src)
        field = self._field(name) if word in ("max", "add", "append") else ""
        put = self._put(
            name,
            {
                "set": source,
                "max": source,
                "add": f"string.format('%d', (tonumber({field}) or 0) + {source})",
                "append": f"({field} or '') ~= '' and {field} .. ',' .. {source} or {source}",
                "stamp": f"string.format('%d', this.clock + {src.text if isinstance(src, Const) else source})",
            }[word],
        )
        if name in LARGE:
            put = self._put_large(name, source, put)
        needs = [f"{source} ~= '\\000'"] if isinstance(src, int) else [source] if isinstance(src, Field) else []
        if word == "max":
            needs.append(f"{field} ~= {source} and not (({field} or '') ~= '' and {field} + 0 >= {source} + 0)")
        yield f"if {' and '.join(needs)} then {put} end" if needs else put

    def _put(self, name: str, value: str) -> str:
        self._touched.add(name)
        field, old = place("fields", name), place("old", name)
        if value == "nil":  # most fields that a branch clears do not exist
            return f"if {field} then if {old} == nil then {old} = {field} end {field} = nil end"
        return f"if {old} == nil then {old} = {field} or false end {field} = {value}"

    def _put_large(self, name: str, source: str, put: str) -> str:
        marker, large = self._put(name, f"'\\26' .. #{source}"), place("apart", name)
        return f"apart = apart or {{}} if #{source} > {LARGE_BYTES} then {large} = {source} {marker} else {large} = false {put} end"

    # --- the event ---

    def _event(self, branch: Branch) -> Iterator[str]:
        if not branch.event:
            return
        yield f"version = {self._next_version()}"
        yield from (self._put("version", "version"), self._put("updated", "this.now"))
        yield f"event, kept = {self._event_text(branch)}, {quoted(branch.keep)}"
        if branch.keep == "life":
            yield "old['!' .. version] = false fields['!' .. version] = event"

    def _next_version(self) -> str:
        return f"string.format('%d', (tonumber({self._field('version')}) or 0) + 1)"

    def _event_text(self, branch: Branch) -> str:
        parts = [self._event_kind(branch), "'\\000'", "this.now"]
        for name in branch.emit:
            text = _constant(branch, name)
            if text is not None:
                parts.append(quoted(f"\0{short_name(name)}={text}"))
                continue
            field = self._field(name)
            parts.append(
                f"(({field} or '') ~= '' and {quoted(chr(0) + short_name(name) + '=')} or '') .. ({field} or '')"
            )
        if branch.data is not None:
            value = self._source(branch.data)
            parts.append(f"({value} ~= '\\000' and '\\000data=' .. {value} or '')")
        return " .. ".join(parts)

    def _event_kind(self, branch: Branch) -> str:
        """Return the kind of the event in Lua: empty if it is the status."""
        sets = _constant(branch, "status")
        if branch.event not in (branch.statuses if sets is None else (sets,)):
            return quoted(branch.event)
        if sets is not None:
            return "''"
        status, kind = self._field("status"), quoted(branch.event)
        return f"({status} == {kind} and '' or {kind})"

    # --- sources ---

    def _field(self, name: str) -> str:
        self.reads.add(name)
        return place("fields", name)

    def _source(self, source: Part) -> str:
        """Return a source in Lua."""
        if isinstance(source, int):
            return f"ARGV[first + {source}]"
        if isinstance(source, Field):
            return self._field(source.name)
        if isinstance(source, Const):
            return quoted(source.text)
        raise AssertionError(f"{source!r} is not a source")


def _constant(branch: Branch, name: str) -> str | None:
    """Return the value of a field after a branch if it is the same for each record, and not empty."""
    last = [op for op in branch.ops if name in op[1:3]][-1:]
    if last and last[0][:2] == ("set", name) and isinstance(last[0][2], Const):
        return last[0][2].text or None
    return None


def _change_limit(function: str, *arguments: str) -> str:
    """Return what lets apply.lua call a function of `open_indexes` with these arguments."""
    change = f"{{'{function}', {', '.join(arguments)}}}"
    return f"limit_changes = limit_changes or {{}} limit_changes[#limit_changes + 1] = {change}"
