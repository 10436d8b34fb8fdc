"""The names of a table's columns, which each row repeats, because a chunk may begin in the middle of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

NAME_CHARACTERS: Final = 200
"""Maximum characters of a column name."""


class TableHeader:
    """Collects the names of columns from rows of only `<th>`, and returns them for the cells below."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._row: list[str] = []
        self._is_header = True
        self._is_open = False
        self._has_spans = False
        self._column = -1

    def begin_row(self) -> None:
        """Begin a row."""
        if self._is_header and len(self._row) > 1:
            self._names = [" ".join(name.split())[:NAME_CHARACTERS] for name in self._row]
        self._row, self._column = [], -1

    def begin_cell(self, *, is_name: bool, spans: bool) -> str:
        """Begin a cell, and return what its text begins with."""
        self._column += 1
        self._has_spans |= spans  # the columns of later cells are unknown
        self._is_header &= is_name
        self._is_open = True
        if self._is_header:
            self._row.append("")
            return ""
        return "" if self._has_spans else label_of(self._names, self._column)

    def add(self, text: str) -> None:
        """Add to the name of a column."""
        if self._is_header and self._is_open and len(self._row[-1]) < NAME_CHARACTERS:
            self._row[-1] += text

    def end_cell(self) -> None:
        """End a cell."""
        self._is_open = False


def label_of(names: Sequence[str], column: int) -> str:
    """Return ``name: `` for a cell, or nothing for a column without a name."""
    return f"{names[column]}: " if column < len(names) and names[column] else ""


def labelled(names: Sequence[str], cells: Sequence[str]) -> str:
    """Return a row below a header: ``name: cell | name: cell``. A row of another length stays without names."""
    if len(names) != len(cells):
        return " | ".join(cells)
    return " | ".join(f"{label_of(names, column)}{cell}" for column, cell in enumerate(cells) if cell)
