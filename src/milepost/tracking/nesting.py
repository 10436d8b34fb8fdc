"""The names of a run's loops, by which their cursors are kept. Owns which loop a loop is inside of; knows no cursor.

The next attempt may come to a loop that is inside of another as the first of its kind, however many there were before.
So it is named after the item that the loop around it is at, and what is kept of it goes when that item is done.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any


class Place:
    """A loop among those of its run: its name, and the item that it is inside of. Tasks and `to_thread` inherit that."""

    __slots__ = ("_named", "_open", "at", "name", "outer", "outer_at")

    def __init__(self, named: dict[str, Place], wanted: str) -> None:
        self._named = named
        self._open = False
        self.outer = next((place for place in reversed(_around.get()) if place._open and place._named is named), None)
        self.outer_at = self.outer.at() if self.outer is not None else None
        self.at: Callable[[], Any] = lambda: None
        """The item that its code is at."""
        name = f"{self.outer.name}[{self.outer_at}]/{wanted}" if self.outer is not None else wanted
        while named.setdefault(name, self) is not self:
            name += "'"
        self.name: str = name

    @property
    def is_over(self) -> bool:
        """Whether the item that it is inside of is done."""
        return self.outer is not None and (self.outer.at() != self.outer_at or self.outer.is_over)

    def enter(self) -> None:
        """What begins from here on is inside of it."""
        self._open = True
        _around.set((*(place for place in _around.get() if place._open), self))

    def leave(self) -> None:
        """It has ended. What is inside of it may end it in another context, which keeps it until something else begins there."""
        self._open = False
        _around.set(tuple(place for place in _around.get() if place is not self))

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()

    def item(self, key: str, done: set[str]) -> Place:
        """One of its items, where several are under way at once."""
        item = object.__new__(Place)
        item._named, item._open = self._named, False
        item.name, item.outer, item.outer_at = self.name, self.outer, self.outer_at
        item.at = lambda: None if key in done else key
        return item


_around: ContextVar[tuple[Place, ...]] = ContextVar("milepost_loops", default=())
