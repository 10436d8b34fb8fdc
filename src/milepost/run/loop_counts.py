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
    is_doubtful: bool = False


class LoopCounts:
    """The loops of a stage that are under way, and what those that have ended have counted.

    A loop that is too large for the total of its stage is doubtful: the total is wrong, or it counts something else, which the
    code counts by `advance`. Until it does, the loop counts, and the stage has no total.
    """

    __slots__ = ("_doubted", "_ended", "_loops", "_sizes", "_unsized", "is_doubtful")

    def __init__(self) -> None:
        self.is_doubtful = False
        self._doubted: float = 0
        self._loops: dict[object, _Loop] = {}
        self._ended: float = 0
        self._sizes: float | None = None
        self._unsized = False

    @property
    def total(self) -> float | None:
        """Return the size of the loops one after another, or None if that of one of them is unknown."""
        return None if self._unsized else self._sizes

    @property
    def are_open(self) -> bool:
        """Whether one of the loops has not ended."""
        return bool(self._loops)

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
            self._doubted += loop.count() if loop.is_doubtful else 0

    def doubt(self, key: object, *, is_counted: bool) -> None:
        """Note that a loop is too large for the total, and whether it counts for now."""
        loop = self._loops[key]
        loop.counts = loop.counts and is_counted
        loop.is_doubtful = loop.counts
        self.is_doubtful = self.is_doubtful or loop.counts

    def drop_doubtful(self) -> None:
        """Take back what doubtful loops have counted: the code counts something else itself."""
        for loop in list(self._loops.values()):
            loop.counts = loop.counts and not loop.is_doubtful
        self._ended, self._doubted = self._ended - self._doubted, 0
        self.is_doubtful = False
