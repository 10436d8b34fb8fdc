"""What the tracked loops of one stage count.

Of loops inside one another only one counts: its items are what the stage has a total of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Loop:
    size: float | None
    count: Callable[[], float]
    counts: bool
    inner_counts: bool = False
    """Whether the loops inside count instead."""


class LoopCounts:
    """The loops of a stage that are under way, and what those that have ended have counted."""

    __slots__ = ("_ended", "_loops", "_sizes", "_unsized")

    def __init__(self) -> None:
        self._loops: dict[object, _Loop] = {}
        self._ended: float = 0
        self._sizes: float | None = None
        self._unsized = False

    @property
    def total(self) -> float | None:
        """Return the size of the loops one after another, or None if that of one of them is unknown."""
        return None if self._unsized else self._sizes

    def count(self) -> float:
        """Return how many items are done."""
        return self._ended + sum(loop.count() for loop in list(self._loops.values()) if loop.counts)

    def add(
        self, key: object, around: object | None, size: float | None, count: Callable[[], float], total: float | None
    ) -> None:
        """Add a loop that begins, inside the loop `around` if that is one of this stage.

        The inner loop counts if the stage has a total of its own that is not the size of the outer loop.
        """
        outer = self._loops.get(around)
        if outer is None:
            counts = True
            if size is None:
                self._unsized = True
            else:
                self._sizes = (self._sizes or 0) + size
        else:
            if outer.counts and None not in (total, outer.size) and outer.size != total:
                outer.counts, outer.inner_counts = False, True
            counts = outer.inner_counts
        self._loops[key] = _Loop(size, count, counts)

    def end(self, key: object) -> None:
        """Keep the count of a loop that has ended. For a moment it is missing, rather than there twice."""
        loop = self._loops.pop(key, None)
        if loop is not None and loop.counts:
            self._ended += loop.count()
