"""The part of the interface of a store that reads the ledger of usage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from milepost.core.ledger import Book


class UsageLedger(Protocol):
    """Sums of what jobs have spent, see `milepost.core.ledger`."""

    async def usage(self, books: Sequence[str]) -> list[Book]:
        """Return the amounts in millionths of these books, of one instant, in order; empty for one that does not exist.

        The store adds to them in the step that changes the `usage` of a record, and they stay when the record is
        removed. The book ``tree:ID`` is removed with the record of ID, by the next purge at the latest.
        """
