"""The cursor of a resumable loop: its name, its position, and whether the next attempt has the same items there.

A cursor is taken between two items, by the thread of the loop, when the heartbeat requests one. So position, item and
state belong together, and other items cost nothing.

A nested loop is named after the item of the loop around it: the next attempt may reach it as the first of its kind. Its
cursor is dropped when that item is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

from milepost.core.errors import InputChangedError, InvalidInputError
from milepost.core.serialization import to_json
from milepost.run.item_content import NOTHING, digest, is_lasting, kept_copy, shown
from milepost.run.items import LoopItems
from milepost.run.stages import LOOP
from milepost.run.state import STATE_BYTES, Snapshots, StateBinding
from milepost.run.typed_values import size_of

T = TypeVar("T")
_FROM_START = (
    "start at item 1 again: milepost retry --from-start, retry_job(job_id, from_start=True); for track() delete the job"
)
REMEDIES = f"sort the items, name them with key=, or {_FROM_START}"
_REMEDIES_WITH_KEY = (
    f"keep their order and either add items behind that place or remove some before it, or {_FROM_START}"
)


class Cursor:
    """The position of a loop with ``resume=True`` or ``state=``, and where it continues."""

    def __init__(
        self, name: str, kept: Mapping[str, Any], key: Callable[[Any], Any] | None, total: int | None,
        state: StateBinding | None, snapshots: Snapshots, *, masked: Callable[[str], str], warn: Callable[[str], None],
        log_unreportable: Callable[[Exception], None],
    ) -> None:  # fmt: skip
        self.wanted: list[bool] = []
        """Not empty if the loop is to check for a stop, or to take a cursor, before its next item."""
        self.name = name
        self.key = key
        self.total = total
        self.kept = kept
        """The cursor of the last attempt; empty when the loop starts at its first item."""
        self.state = state
        self.position = 0
        """How many items were passed over."""
        self.taken: dict[str, Any] = {name: value for name, value in kept.items() if name not in ("ledger", "state")}
        """The newest cursor."""
        self._snapshots = snapshots
        self._masked = masked
        self._warn = warn
        self._cannot_tell = log_unreportable
        self._found = not kept
        self._held: tuple[Any, Any] = (NOTHING, NOTHING)
        """The item in progress, and a copy of it as it was before the code had it."""
        self._warned = False
        if "state" in kept:
            snapshots.take_over(name, dict(kept))

    @property
    def start(self) -> int:
        """Return how many items an earlier attempt has finished."""
        return int(self.kept.get("n", 0))

    def enter(self) -> None:
        """Start the loop: restore its state, or check it if there is none to restore."""
        if self.state is None:
            return
        self.state.is_open = True
        if "state" in self.kept:
            self.state.restore(self.kept["state"])
        elif (size := size_of(self.state.dump())) > STATE_BYTES:
            raise InvalidInputError(
                "state", f"{size} bytes, the limit is {STATE_BYTES}; store it elsewhere and keep a reference"
            )

    def leave(self) -> None:
        """End the loop, finished or not."""
        if self.state is not None:
            self.state.is_open = False

    # --- passing over what was done ---

    @property
    def is_behind(self) -> bool:
        """Return whether there are still items to skip."""
        return bool(self.kept) and not self._found

    def pass_over(self, item: Any) -> None:
        """Skip an item that an earlier attempt finished. Raises InputChangedError if it was another one."""
        index = self.position
        self.position += 1
        if self.key is None:
            self._check(index, item)
            self._found = self.position == self.start
            return
        after, before = self.kept.get("key"), self.kept.get("of")
        removed = before - self.total if before is not None and self.total is not None else 0
        is_expected = index == self.start - 1 or index == self.start - 1 - removed
        self._found = is_expected and plain_key(self.key(item)) == after
        if index >= self.start - 1 and not self._found:
            raise self._changed(index, f"{after!r:.80}", item)

    def exhausted(self) -> InputChangedError:
        """Return the error for items that end before the position to continue from."""
        stood = f"item {self.start}"
        if self.key is not None:
            stood += f" ({self.kept.get('key')!r:.80})"
        return self._refusal(f"the last attempt came to {stood}, which is no longer among the items")

    def check_total(self) -> None:
        """Reject a position if the number of items has changed: it may mean another item."""
        before = self.kept.get("of")
        if self.key is None and before is not None and self.total is not None and before != self.total:
            at, _, text = self.kept.get("item") or (None, None, None)
            stood = f" (it was at {text})" if text and at == self.start else ""
            raise self._refusal(f"the last attempt had {before} items{stood}, this one has {self.total}")

    def _check(self, index: int, item: Any) -> None:
        at, kept, text = self.kept.get("item") or (None, None, None)
        if index == at and kept is not None and (now := digest(item)) is not None and now != kept:
            raise self._changed(index, str(text), item)

    def _changed(self, index: int, before: str, item: Any) -> InputChangedError:
        now = f"{plain_key(self.key(item))!r:.80}" if self.key is not None else shown(item)
        return self._refusal(f"item {index + 1} was {before} in the last attempt, now it is {now}")

    def _refusal(self, problem: str) -> InputChangedError:
        return InputChangedError(self._masked(problem), REMEDIES if self.key is None else _REMEDIES_WITH_KEY)

    # --- the place of this attempt ---

    def ask(self) -> None:
        """Request a cursor, which the loop takes before its next item. Thread-safe."""
        if not self.wanted and (self.state is None or self._snapshots.is_due(self.name)):
            self.wanted.append(True)

    def stand_at(self, n: int, item: Any) -> None:
        """Note item `n`, which is about to be yielded and identifies the position."""
        if n == self.position and self.kept:
            if self.key is None and self.kept.get("end"):
                raise self._refusal(f"the last attempt had finished all {n} items, now {shown(item)} comes after them")
            if self.key is None:
                self._check(n, item)
        if self.key is None:
            self.taken = {**self.taken, "n": n, "item": [n, digest(item), self._masked(shown(item))]}
            if self.state is not None:
                self._snapshots.amend(self.name, {"item": self.taken["item"]})

    def holding(self, items: Iterator[T], first: T) -> Iterator[T]:
        """Return the items after the first one; each is held when the loop comes to it, if the first one had to be."""
        self.hold(first)
        return items if self._held[0] is NOTHING else map(self._hold, items)

    def hold(self, item: Any) -> None:
        """Keep what an item is before the code gets it, if the code can change it and it identifies the position."""
        if self.key is None and self.state is None and not is_lasting(item):
            self._hold(item)

    def _hold(self, item: T) -> T:
        self._held = (item, kept_copy(item))
        return item

    def take(self, n: int, last: Any, *, end: bool = False) -> None:
        """Take the cursor and the snapshot: `n` items are done, the last one is `last`."""
        if not self._place(n, last):
            return
        if end and self.key is None:
            self.taken["end"] = True
        if self.state is None:
            return
        cursor = {**self.taken, "version": self.state.version}
        if not self._snapshots.put(self.name, cursor, self.state.dump()) and not self._warned:
            self._warned = True
            self._warn(f"state is not kept any more: {self._snapshots.error}")

    def leave_at(self, n: int, last: Any, item: Any) -> None:
        """Note that the loop was left in the middle of an item. Without state it continues there."""
        if self.state is not None:
            return
        if not self._place(n, last):
            return
        if self.key is not None or item is NOTHING or item is last:
            return
        held, copy = self._held
        content = item if is_lasting(item) else copy if held is item else NOTHING
        if content is not NOTHING:
            self.taken["item"] = [n, digest(content), self._masked(shown(content))]

    def _place(self, n: int, last: Any) -> bool:
        """Take the cursor alone; return whether that was possible, since the key is user code."""
        taken: dict[str, Any] = {"n": n}
        if self.total is not None:
            taken["of"] = self.total
        if self.key is not None:
            try:
                taken["key"] = self.taken.get("key") if n == self.position else plain_key(self.key(last))
            except Exception as error:  # noqa: BLE001 - it must not end the work on the items
                self._cannot_tell(error)
                return False
        elif "item" in self.taken:
            taken["item"] = self.taken["item"]
        self.taken = taken
        return True


def plain_key(key: Any) -> Any:
    """Return a key in the form that a cursor stores."""
    if isinstance(key, str | int) or key is None:
        return key
    to_json(key, "key", 1024)
    return key if isinstance(key, float) else str(key)


class LoopScope:
    """A loop of a run: its name, and the item of the loop around it. Tasks and `to_thread` inherit it."""

    __slots__ = (
        "_named", "_open", "_wanted", "at", "has_state", "is_counted", "is_shared", "name", "outer", "outer_at", "resumes",
        "share", "whole",
    )  # fmt: skip

    def __init__(self, named: dict[str, LoopScope], wanted: str, resumes: bool, is_counted: bool = False) -> None:
        self._named = named
        self._open = False
        self.resumes = resumes
        self.is_counted = is_counted
        """Whether a second loop of its name gets another name, although it resumes."""
        self.has_state = False
        self.share = LoopItems()
        self.whole = self
        """The loop itself, if this is the scope of one of its items."""
        self.outer = current_loop(named)
        self.outer_at = self.outer.at() if self.outer is not None else None
        self.at: Callable[[], Any] = lambda: None
        """The item in progress."""
        name = f"{self.outer.name}[{self.outer_at}]/{wanted}" if self.outer is not None else wanted
        self._wanted = name
        self.is_shared = False
        """Whether a second loop that resumes has asked for its name."""
        for place in list(named.values()) if resumes and not is_counted else ():
            if place.resumes and not place.is_counted and place._wanted == name:
                place.is_shared = True
                raise InvalidInputError("stage", duplicate_name_error(wanted))
        while named.setdefault(name, self) is not self:
            name += "'"
        self.name: str = name

    @property
    def is_over(self) -> bool:
        """Return whether the item around the loop is done."""
        return self.outer is not None and (self.outer.at() != self.outer_at or self.outer.is_over)

    @property
    def is_redone(self) -> bool:
        """Return whether a loop around it starts again from its first item in the next attempt."""
        return self.outer is not None and (not self.outer.resumes or self.outer.is_redone)

    def enter(self) -> None:
        """Make this the current loop."""
        self._open = True
        _open_loops.set((*(place for place in _open_loops.get() if place._open), self))

    def leave(self) -> None:
        """End the loop. In another context it stays listed until another loop starts there."""
        self._open = False
        _open_loops.set(tuple(place for place in _open_loops.get() if place is not self))

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()

    def item(self, key: str, done: set[str]) -> LoopScope:
        """Return the scope of one item, if several are in progress at once."""
        item = object.__new__(LoopScope)
        item._named, item._open, item.resumes = self._named, False, self.resumes
        item.is_counted, item.has_state, item.is_shared = self.is_counted, self.has_state, self.is_shared
        item.name, item._wanted, item.outer, item.outer_at = self.name, self._wanted, self.outer, self.outer_at
        item.share, item.whole = self.share, self
        item.at = lambda: None if key in done else key
        return item

    def shares(self, at: Any) -> list[tuple[LoopItems, Any]]:
        """Return the resumable loops that item `at` counts for, each with its own item."""
        found = [(self.share, at)] if self.resumes else []
        return found if self.outer is None else found + self.outer.shares(self.outer_at)


def current_loop(named: dict[str, LoopScope]) -> LoopScope | None:
    """Return the innermost loop of a run that the caller is inside, or None."""
    return next((place for place in reversed(_open_loops.get()) if place._open and place._named is named), None)


def duplicate_name_error(name: str) -> str:
    """Return the error text for a second resumable loop of the same name: it could get the position of the first."""
    which = "have no name of their own" if name == LOOP else f"are named {name!r:.80}"
    return f"two loops with resume=True or state= {which}; name each, for example stage=f'Rows {{name}}'"


_open_loops: ContextVar[tuple[LoopScope, ...]] = ContextVar("milepost_loops", default=())
