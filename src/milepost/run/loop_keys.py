"""The names of a run's loops, which are the keys of their cursors.

A nested loop is named after the item of the loop around it: the next attempt may reach it as the first of its kind. Its
cursor is dropped when that item is done.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from milepost.core.errors import InvalidInputError
from milepost.run.items import LoopItems
from milepost.run.stages import LOOP


class LoopScope:
    """A loop of a run: its name, and the item of the loop around it. Tasks and `to_thread` inherit it."""

    __slots__ = (
        "_named", "_open", "_wanted", "at", "has_state", "is_counted", "is_shared", "name", "outer", "outer_at", "resumes",
        "share",
    )  # fmt: skip

    def __init__(self, named: dict[str, LoopScope], wanted: str, resumes: bool, is_counted: bool = False) -> None:
        self._named = named
        self._open = False
        self.resumes = resumes
        self.is_counted = is_counted
        """Whether a second loop of its name gets another name, although it resumes."""
        self.has_state = False
        self.share = LoopItems()
        self.outer = current_loop(named)
        self.outer_at = self.outer.at() if self.outer is not None else None
        self.at: Callable[[], Any] = lambda: None
        """The item in progress."""
        name = f"{self.outer.name}[{self.outer_at}]/{wanted}" if self.outer is not None else wanted
        self._wanted = name
        self.is_shared = False
        """Whether a second loop that resumes has asked for its name."""
        for place in tuple(named.values()) if resumes and not is_counted else ():
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
        item.share = self.share
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
