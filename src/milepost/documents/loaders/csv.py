"""CSV and TSV: each row becomes a paragraph of `header: value` lines, so that chunks are self-explanatory."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from milepost.documents.errors import BadDocumentError
from milepost.documents.loaders.piece import LoadReport, Piece, Pieces
from milepost.documents.loaders.text import Encoding, encoding_warnings, find_encoding, read_blocks

_DELIMITERS: Final = ",;\t|"
_ROWS_PER_PIECE: Final = 500
_MAX_FIELD: Final = 16 * 1024 * 1024
_NAME_CHARACTERS: Final = 200
"""Maximum characters of a column name, because every row repeats it."""


def load_csv(path: Path, *, encoding: str | None = None) -> Pieces:
    """Yield a table in pieces of some hundred rows. The unit is bytes.

    The first row is the header. A table with one row is returned unchanged.
    """
    found = find_encoding(path, encoding=encoding)
    place = _RowPosition()
    delimiter = _find_delimiter(_lines(path, found, _RowPosition()))
    csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader(_lines(path, found, place), delimiter=delimiter)
    rows = (row for row in reader if any(map(str.strip, row)))
    try:
        header = next(rows, [])
        names = [name.strip()[:_NAME_CHARACTERS] for name in header]
        seen = False
        while block := list(islice(rows, _ROWS_PER_PIECE)):
            seen = True
            yield Piece("".join(f"{_paragraph(names, row)}\n\n" for row in block), place.done, place.total)
    except csv.Error as error:
        raise BadDocumentError("corrupt_document", f"{path.name} is a damaged CSV: {error}") from error
    if not seen:
        yield Piece(", ".join(header), place.total, place.total)
    return LoadReport("csv", warnings=encoding_warnings(found))


class _RowPosition:
    """How many bytes of the file have been read."""

    done = 0
    total = 0


def _lines(path: Path, encoding: Encoding, place: _RowPosition) -> Iterator[str]:
    rest = ""
    for text, place.done, place.total in read_blocks(path, encoding):
        lines = (rest + text).split("\n")
        rest = lines.pop()
        for line in lines:
            yield line + "\n"
    if rest:
        yield rest


def _find_delimiter(lines: Iterator[str]) -> str:
    """Return the delimiter that gives the first rows the most columns, and equally many."""
    sample = list(islice((line for line in lines if line.strip()), 20))

    def fit(delimiter: str) -> float:
        widths = [len(row) for row in csv.reader(sample, delimiter=delimiter)]
        if not widths or widths[0] < 2:
            return 0.0
        return widths.count(widths[0]) / len(widths) + min(widths[0], 50) / 1000

    csv.field_size_limit(_MAX_FIELD)
    try:
        return max(_DELIMITERS, key=fit)
    except csv.Error:
        return ","


def _paragraph(names: list[str], row: list[str]) -> str:
    names = names + [""] * (len(row) - len(names))
    return "\n".join(
        f"{names[column] or f'column {column + 1}'}: {value.strip()}"
        for column, value in enumerate(row)
        if value.strip()
    )
