"""Text files, Markdown and tables in CSV."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, cast

from milepost.documents.errors import BadDocumentError
from milepost.documents.loaders import LoadReport, Piece, Pieces, printable, without_headings
from milepost.documents.loaders.table_header import NAME_CHARACTERS

BLOCK_CHARACTERS: Final = 128 * 1024
_BLOCK_BYTES: Final = 256 * 1024
_DECLARED: Final = re.compile(
    rb"""<meta[^>]+charset\s*=\s*["']?\s*([a-zA-Z0-9_.:-]+)|^\s*<\?xml[^>]+encoding\s*=\s*["']([a-zA-Z0-9_.:-]+)""",
    re.I,
)
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, because it begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")
_FEW_REPLACED: Final = 3
_SAMPLE_BYTES: Final = 32 * 1024
_TELLING_BYTES: Final = 8
"""With fewer bytes beyond ASCII, a guess is no better than the most common encoding."""
_GUESSED: Final = (
    "cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256",
    "gb18030", "big5", "shift_jis", "euc_jp", "euc_kr",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoding of a file, whether it is a guess, and whether some bytes are replaced."""

    name: str
    guessed: bool = False
    is_damaged: bool = False


def load_text(path: Path, *, encoding: str | None = None) -> Pieces:
    """Yield a text file in blocks. The unit is bytes."""
    found = find_encoding(path, encoding=encoding)
    for text, done, total in read_blocks(path, found):
        yield Piece(text, done, total)
    return LoadReport("text", warnings=encoding_warnings(found))


def load_markdown(path: Path, *, encoding: str | None = None) -> Pieces:
    """Yield a Markdown file in blocks, with fenced code as indented code. The unit is bytes."""
    found = find_encoding(path, encoding=encoding)
    fence = ""
    place = _RowPosition()
    ready: list[str] = []
    size = 0
    for line in _lines(path, found, place):
        mark = _FENCE.match(line)
        if fence:
            is_end = mark is not None and mark[1].startswith(fence) and not line.strip("`~ \n")
            fence = "" if is_end else fence
            line = without_headings(line)
        elif mark is not None:
            fence = mark[1]
        ready.append(line)
        size += len(line)
        if size >= BLOCK_CHARACTERS:
            yield Piece("".join(ready), place.done, place.total)
            ready, size = [], 0
    yield Piece("".join(ready), place.total, place.total)
    return LoadReport("markdown", warnings=encoding_warnings(found))


def find_encoding(path: Path, *, encoding: str | None = None) -> Encoding:
    """Return the encoding of a text file: byte order mark, UTF-8, declaration, `encoding`, UTF-8 with at most 1 % of
    damaged characters, else a guess from the content.

    Reads the whole file once, in blocks. Raises `BadDocumentError("binary_content")` for a NUL byte without a byte
    order mark.
    """
    utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
    characters = replaced = beyond_ascii = 0
    head = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            if not head:
                head = block[:4096]
                for mark, name in _BOMS:
                    if head.startswith(mark):
                        return Encoding(name)
            if b"\x00" in block:
                raise BadDocumentError("binary_content", f"{path.name} is not text: it contains NUL bytes")
            text = utf8.decode(block)
            characters += len(text)
            if not text.isascii():
                marks = text.count("\ufffd")
                replaced += marks - block.count(b"\xef\xbf\xbd")
                beyond_ascii += len(text) - len(text.encode("ascii", "ignore")) - marks
        replaced += len(utf8.decode(b"", final=True))
    if replaced <= 0:
        return Encoding("utf-8")
    declared = _DECLARED.search(head)
    name = (declared[1] or declared[2]).decode("ascii") if declared else encoding or ""
    if name and is_text_encoding(name) and not name.lower().startswith(("utf-8", "utf8", "utf-16", "utf16")):
        return Encoding(name)
    if replaced <= min(beyond_ascii, max(_FEW_REPLACED, characters // 100)):
        return Encoding("utf-8", is_damaged=True)
    return Encoding(_guess(path), guessed=True)


def _guess(path: Path) -> str:
    """Return the most plausible encoding of a text that is not UTF-8."""
    from charset_normalizer import from_bytes

    with path.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
    if len(sample) - len(sample.decode("ascii", "ignore")) < _TELLING_BYTES:
        return "cp1252"
    best = from_bytes(sample, cp_isolation=list(_GUESSED)).best()
    return best.encoding if best is not None else "cp1252"


def read_blocks(path: Path, encoding: Encoding) -> Iterator[tuple[str, int, int]]:
    """Yield (text, bytes read, total bytes). Line ends become newlines, and undecodable bytes are replaced."""
    total = path.stat().st_size
    with path.open(encoding=encoding.name, errors="replace", newline=None) as file:
        while True:
            try:
                text = file.read(BLOCK_CHARACTERS)
            except UnicodeError as error:  # possibly UTF-16 or UTF-32 without a mark
                raise BadDocumentError("binary_content", f"{path.name} is not {encoding.name}: {error}") from error
            if not text:
                return
            yield printable(text), min(cast(io.BufferedReader, file.buffer).tell(), total), total


def encoding_warnings(encoding: Encoding) -> tuple[str, ...]:
    """Return the warnings about an encoding."""
    if encoding.is_damaged:
        return ("undecodable_bytes",)
    return ("encoding_guessed",) if encoding.guessed else ()


def is_text_encoding(name: str) -> bool:
    """Return whether Python has a text encoding of this name."""
    try:
        "text".encode(name)
    except (LookupError, UnicodeError):
        return False
    return True


_DELIMITERS: Final = ",;\t|"
_ROWS_PER_PIECE: Final = 500
_MAX_FIELD: Final = 16 * 1024 * 1024


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
        names = [name.strip()[:NAME_CHARACTERS] for name in header]
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
    rest: list[str] = []  # joined at the end of the line, which may be far away
    for text, place.done, place.total in read_blocks(path, encoding):
        first, newline, others = text.partition("\n")
        rest.append(first)
        if newline:
            yield "".join(rest) + newline
            *lines, last = others.split("\n")
            rest = [last]
            for line in lines:
                yield line + "\n"
    if any(rest):
        yield "".join(rest)


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
