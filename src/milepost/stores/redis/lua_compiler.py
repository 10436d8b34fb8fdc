"""Compile transition types to Lua, inserted into `apply.lua`, so that the server interprets and decodes nothing.

A batch of one transition type has its own script, the same in every process. Mixed batches share one script with all
transition types that this process has ever mixed; it grows a few times and then stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from milepost.core.record_codec import short_name
from milepost.core.transitions.change import Branch, TransitionType
from milepost.stores.redis.lua_branches import BranchWriter, boolean, quoted
from milepost.stores.redis.lua_new_records import new_records
from milepost.stores.redis.lua_runs import run_writes
from milepost.stores.redis.lua_single_write import single_write
from milepost.stores.redis.scripts import Script, transition_script

MISSING_VALUE = b"\0"
"""Stands for a missing value; text of records never contains NUL."""

_KEPT_IN = {"callers": "caller_ops", "updates": "update_ops"}
"""How operation ids are kept -> the field that has them, if it is not `recent_ops`."""


class CompiledTransition(NamedTuple):
    """A transition type in Lua: its branches, and its entry in the head of a script."""

    name: str
    width: int
    """How many values are sent: up to the last one that a branch uses."""
    about: str
    branches: str
    grows: bool
    """Whether it creates records, which a full server refuses."""
    is_asked: bool
    """Whether callers send it, so that their operation ids are looked up."""
    first: str
    """What is tried first, see `lua_single_write` and `lua_new_records`."""
    straight: str
    """What is tried first for each record, see `lua_runs`."""


ScriptNumbers = dict[TransitionType, tuple[int, int]]


class LuaCompiler:
    """Compiles each transition type once. They are compared by identity, so it keeps them.

    Thread-safe without a lock, which a fork could leave locked: what belongs together is replaced in one step.
    """

    KEPT = 1000
    """Transition types are constants, so this limits only programs that create them at run time."""

    def __init__(self) -> None:
        self._known: dict[TransitionType, CompiledTransition] = {}
        self._alone: dict[TransitionType, tuple[Script, ScriptNumbers]] = {}
        self._mixture: tuple[ScriptNumbers, dict[bool, Script]] = {}, {}

    def compiled(self, transition: TransitionType) -> CompiledTransition:
        """Return a transition type in Lua."""
        found = self._known.get(transition)
        if found is None:
            if len(self._known) >= self.KEPT:
                self._known, self._alone = {}, {}
            found = self._known[transition] = compile_transition(transition)
        return found

    def script(self, transitions: Sequence[TransitionType]) -> tuple[Script, ScriptNumbers]:
        """Return the script for a batch of these transition types, with the number and the width of each in it."""
        transition = transitions[0]
        if transitions.count(transition) == len(transitions):
            alone = self._alone.get(transition)
            if alone is None:
                compiled = self.compiled(transition)
                alone = self._alone[transition] = _script([compiled]), {transition: (1, compiled.width)}
            return alone
        wanted = dict.fromkeys(transitions)
        numbers, scripts = self._mixture
        if not wanted.keys() <= numbers.keys():
            kept = () if len(numbers) >= self.KEPT else numbers
            several = sorted({*kept, *wanted}, key=lambda transition: (transition.name, self.compiled(transition)))
            numbers = {
                transition: (number, self.compiled(transition).width) for number, transition in enumerate(several, 1)
            }
            scripts = {}
            self._mixture = numbers, scripts
        grows = any(self.compiled(transition).grows for transition in wanted)
        script = scripts.get(grows)
        if script is None:
            script = scripts[grows] = _script([self.compiled(transition) for transition in numbers], grows=grows)
        return script, numbers


def compile_transition(transition: TransitionType) -> CompiledTransition:
    """Compile a transition type to Lua."""
    width = 1 + max((part for branch in transition.branches for part in _places(branch)), default=-1)
    writers = [BranchWriter(branch, number) for number, branch in enumerate(transition.branches)]
    reads = {"status", "version", _KEPT_IN.get(transition.retention, "recent_ops")}.union(
        *(writer.reads for writer in writers)
    )
    if transition.retention == "last":
        reads.add("token")  # tells whether the same run continues
    mortal = transition.retention == "callers" or any(
        "" in c.statuses or ("remove",) in c.ops for c in transition.branches
    )
    if mortal:
        reads.add("created_by_op")
    fields = ", ".join(quoted(short_name(name)) for name in sorted(reads))
    retention = quoted("p" if transition.retention == "checkpoints" else transition.retention[0])
    about = (
        f"{width}, {boolean(any(map(_needs_all, transition.branches)))}, {retention}, {boolean(mortal)}, {{{fields}}}"
    )
    branches = "".join(f"{'if' if not n else 'elseif'} {w.condition} then\n{w.body}" for n, w in enumerate(writers))
    grows = any("" in branch.statuses and branch.event for branch in transition.branches)
    return CompiledTransition(
        transition.name,
        width,
        about,
        f"{branches}end\n" if branches else "",
        grows,
        mortal or transition.retention == "updates",
        new_records(transition, width) if mortal else single_write(transition, width),
        run_writes(transition),
    )


def _script(transitions: list[CompiledTransition], *, grows: bool | None = None) -> Script:
    about = "".join(f"if transition == {number} then return {c.about} end\n" for number, c in enumerate(transitions, 1))
    branches = (
        "else".join(f"if transition == {number} then\n{c.branches}" for number, c in enumerate(transitions, 1))
        + "end\n"
    )
    straight = "".join(
        f"if transition == {number} then\n{c.straight}end\n" for number, c in enumerate(transitions, 1) if c.straight
    )
    return transition_script(
        transitions[0].first if len(transitions) == 1 else "",
        f"local function about(transition)\n{about}end\n",
        straight,
        branches,
        grows=transitions[0].grows if grows is None else grows,
        is_asked=any(transition.is_asked for transition in transitions),
    )


def _places(branch: Branch) -> Iterator[int]:
    """Yield the positions of the values that a branch uses."""
    for words in (*branch.guards, *branch.ops, (branch.data,)):
        yield from (part for part in words if isinstance(part, int))


def _needs_all(branch: Branch) -> bool:
    """Return whether the record may change between hash and string, or be removed: then all of it is needed."""
    return any(
        operation[0] in ("stop", "remove", "drop")
        or (operation[0] == "clear" and operation[1] == "token")
        or (operation[0] != "take" and operation[1] in ("completed", "created", "type"))
        for operation in branch.ops
    ) and branch.statuses != ("",)
