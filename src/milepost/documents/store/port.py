"""The seam between the SQL that is written once and a database.

A port opens connections, runs one transaction at a time, keeps vectors in the form
that suits it and finds the nearest. Statements use `?` for values; `ON CONFLICT`,
`RETURNING` and common table expressions are what both databases share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from milepost.documents.errors import StoreBusy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
Row = tuple[Any, ...]
PATIENCE_SECONDS: Final = 600.0
_LONGEST_WAIT: Final = 5.0
_TICK_SECONDS: Final = 0.1


class Transaction(Protocol):
    """Statements that are done together or not at all."""

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Every row of the answer."""
        ...

    def one(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """The first row of the answer, or None."""
        ...

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run a statement and return the number of rows it changed."""
        ...

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each row of values."""
        ...


class Database(Protocol):
    """A database that can hold documents."""

    def transact(self, work: Callable[[Transaction], T], *, write: bool = True) -> T:
        """Run `work` in a transaction. Raises `StoreBusy` for what may pass: locked, full, away."""
        ...

    def to_vector(self, vector: NDArray[np.float32]) -> Any:
        """A vector as this database keeps it."""
        ...

    def from_vectors(self, values: Sequence[Any], dimension: int) -> NDArray[np.float32]:
        """Kept vectors as an array of shape (len(values), dimension)."""
        ...

    def nearest(
        self, transaction: Transaction, generation: int, dimension: int, vector: NDArray[np.float32], k: int
    ) -> list[tuple[float, str, int]]:
        """(cosine, version id, ordinal) of the `k` nearest chunks of a generation, best first."""
        ...

    def close(self) -> None:
        """Close connections; they are opened again when needed."""
        ...


def patiently(
    work: Callable[[], T], waiting: Callable[[str], object] | None, *, patience: float = PATIENCE_SECONDS
) -> T:
    """Do something that may raise `StoreBusy` until it works, for up to `patience` seconds.

    `waiting` hears why, again and again, and an empty text when it works at last; it may raise to give up.
    """
    deadline = time.monotonic() + patience
    pause = _TICK_SECONDS
    while True:
        try:
            done = work()
            if waiting is not None and pause > _TICK_SECONDS:
                waiting("")
            return done
        except StoreBusy as busy:
            if time.monotonic() + pause > deadline:
                raise
            resume = time.monotonic() + pause
            while (left := resume - time.monotonic()) > 0:
                if waiting is not None:
                    waiting(str(busy))
                time.sleep(min(left, _TICK_SECONDS))
            pause = min(pause * 2, _LONGEST_WAIT)
