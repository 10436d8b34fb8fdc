"""The vectors of a generation in memory, brought up to date by reading only what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_GROWTH: Final = 1.25
_FIRST_ROWS: Final = 4096


@dataclass(frozen=True, slots=True)
class State:
    """What a store counts: its publications, and how often entries were removed."""

    revision: str
    removals: str


class VectorCache:
    """The vectors of one generation, by ascending entry number. It grows in place.

    It starts empty, or with the first `count` rows of a saved matrix, which are those of `state`. `unsaved` counts the
    entries that were added and removed since.
    """

    def __init__(
        self,
        generation: int,
        dimension: int,
        saved: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None,
        count: int = 0,
        state: State | None = None,
    ) -> None:
        import numpy as np

        self.generation = generation
        self.state = state or State("", "")
        self.unsaved = 0
        self._count = count
        self._numbers: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._vectors: NDArray[np.float32] = np.empty((0, dimension), dtype=np.float32)
        if saved is not None:
            self._numbers, self._vectors = saved

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The entry numbers."""
        return self._numbers[: self._count]

    @property
    def vectors(self) -> NDArray[np.float32]:
        """The vectors of `numbers`, one a row."""
        return self._vectors[: self._count]

    def places(self, numbers: Iterable[int]) -> NDArray[np.intp]:
        """Return the rows of those of these entries that are here."""
        import numpy as np

        wanted = np.unique(np.fromiter(numbers, dtype=np.int64))
        at = np.searchsorted(self.numbers, wanted)
        inside = at < self._count
        inside[inside] = self.numbers[at[inside]] == wanted[inside]
        found: NDArray[np.intp] = at[inside]
        return found

    def refresh(
        self,
        state: State,
        added: Callable[[int], Iterable[tuple[list[int], NDArray[np.float32]]]],
        present: Callable[[], list[int]],
    ) -> None:
        """Bring the cache to a state of the store.

        `added` returns the entries after a number, in blocks. `present` returns the numbers of all entries, and is called
        only after a removal.
        """
        if state == self.state:
            return
        if self._count and state.removals != self.state.removals:
            self._keep(present())
        for numbers, vectors in added(int(self.numbers[-1]) if self._count else 0):
            self._append(numbers, vectors)
        self.state = state

    def _keep(self, present: list[int]) -> None:
        import numpy as np

        kept = np.flatnonzero(np.isin(self.numbers, np.asarray(present, dtype=np.int64)))
        self.unsaved += self._count - len(kept)
        moved = np.flatnonzero(kept != np.arange(len(kept)))
        if len(moved):  # what stands before the first removed row stays in place
            first = int(moved[0])
            self._numbers[first : len(kept)] = self._numbers[kept[first:]]
            self._vectors[first : len(kept)] = self._vectors[kept[first:]]
        self._count = len(kept)

    def _append(self, numbers: list[int], vectors: NDArray[np.float32]) -> None:
        import numpy as np

        end = self._count + len(numbers)
        if end > len(self._numbers):
            rows = max(end, int(len(self._numbers) * _GROWTH), _FIRST_ROWS)
            more_numbers = np.empty(rows, dtype=np.int64)
            more_vectors = np.empty((rows, self._vectors.shape[1]), dtype=np.float32)
            more_numbers[: self._count], more_vectors[: self._count] = self.numbers, self.vectors
            self._numbers, self._vectors = more_numbers, more_vectors
        self._numbers[self._count : end] = numbers
        self._vectors[self._count : end] = vectors
        self._count = end
        self.unsaved += len(numbers)
