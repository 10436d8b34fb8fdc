"""The ledger of usage of the memory store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping

from milepost.core.ledger import DAY_BOOK, MAX_ROWS, MAX_SUM, TREE, Book, changed_usage, first_kept, others

Record = Mapping[str, str]


class Ledger:
    """Amounts by book, series and name. Not thread-safe."""

    def __init__(self) -> None:
        self._books: dict[str, Counter[tuple[str, str]]] = {}

    def count(self, record: Record, before: Record, now: int, known: Container[str]) -> None:
        """Add what a change of a record has spent. Ancestors that are not among the known jobs are left out."""
        for book, series, name, amount in changed_usage(record, before, now):
            if not book.startswith(TREE) or book.removeprefix(TREE) in known:
                sums = self._books.setdefault(book, Counter())
                if book.startswith(DAY_BOOK) and len(sums) >= MAX_ROWS and (series, name) not in sums:
                    series = others(series)
                sums[series, name] = min(MAX_SUM, sums[series, name] + amount)

    def read(self, book: str) -> Book:
        """Return a copy of a book; empty if it does not exist."""
        return dict(self._books.get(book, {}))

    def remove(self, job_id: str) -> None:
        """Remove the book of the descendants of a job."""
        self._books.pop(TREE + job_id, None)

    def forget(self, now: int) -> None:
        """Remove the books of days that are too old."""
        for book in [book for book in self._books if book.startswith(DAY_BOOK) and book < first_kept(now)]:
            del self._books[book]
