"""Read documents of all formats as text, piece by piece.

`load` detects the format and yields the pieces of its loader, a plugin that imports its parser only when a file needs
it. It runs in the calling process;
`milepost.documents.loader_process` protects against parsers that hang or crash.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from milepost import plugins
from milepost.documents.errors import BadDocumentError
from milepost.documents.file_types import MAX_BYTES, Format, detect_type, failed_read

_MARK_AT_LINE_START: Final = re.compile(r"^(?=#)", re.M)
CODE: Final = "    "
"""What a line of code begins with."""
# Control characters such as NUL, private-use characters, and lone surrogates, which UTF-8 cannot encode.
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ue000-\uf8ff\ufffe\uffff\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a document's text, and the progress of its loader.

    `done` of `total` is in the loader's unit: pages of a PDF, bytes of a text, blocks of a DOCX. `page` counts from 1,
    for formats with pages.
    """

    text: str
    done: int
    total: int
    page: int | None = None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a loader found out about a document.

    `size` is in bytes; `warnings` are among `extension_mismatch`, `encoding_guessed`, `undecodable_bytes`,
    `failed_pages`.
    """

    format: Format
    size: int = 0
    title: str = ""
    pages: int | None = None
    failed_pages: int = 0
    warnings: tuple[str, ...] = ()


Pieces: TypeAlias = Generator[Piece, None, LoadReport]


def printable(text: str) -> str:
    """Return text without characters that no text needs and stores refuse, including private-use icons."""
    return _UNPRINTABLE.sub("", text)


def without_headings(text: str) -> str:
    """Return text in which no line is a heading: a line that begins with `#`, such as a shell prompt, becomes code."""
    return _MARK_AT_LINE_START.sub(CODE, text)


def as_code(text: str) -> str:
    """Return text as lines of code."""
    return CODE + text.replace("\n", "\n" + CODE)


__all__ = ["LoadReport", "Piece", "Pieces", "load"]


def load(path: Path | str, *, encoding: str | None = None, max_bytes: int = MAX_BYTES) -> Pieces:
    """Yield the text of a document piece by piece, and return a `LoadReport`.

    The document's text is the pieces joined without a separator. Headings are lines that begin with `#`, lines of code
    are indented by four spaces, table cells are joined with ` | `. `encoding` is for texts that are not UTF-8 and do
    not declare their encoding.

    Raises `BadDocumentError`. Parsers may raise other exceptions for damaged files.
    """
    path = Path(path)
    recognised = detect_type(path, max_bytes=max_bytes)
    loader = plugins.find("milepost.loaders", recognised.format)
    assert loader is not None, "only formats with a loader are detected"
    source: Any = path
    if recognised.is_packed:
        from milepost.documents.loaders.unpacked import UnpackedFile

        source = UnpackedFile(path)
    pieces: Pieces = loader.load()(source, encoding=encoding)
    report = yield from _with_text(pieces, path)
    return LoadReport(
        format=recognised.format,
        size=recognised.size,
        title=report.title,
        pages=report.pages,
        failed_pages=report.failed_pages,
        warnings=(*recognised.warnings, *report.warnings),
    )


def _with_text(pieces: Pieces, path: Path) -> Generator[Piece, None, LoadReport]:
    """Pass on pieces, and refuse a document without text."""
    seen = False
    iterator = iter(pieces)
    while True:
        try:
            piece = next(iterator)
        except StopIteration as stop:
            report: LoadReport = stop.value
            break
        except OSError as error:
            raise failed_read(path.name, error) from error
        seen = seen or (not piece.text.isspace() and piece.text != "")
        yield piece
    if not seen:
        scan = " (a scan?)" if report.format == "pdf" else ""
        raise BadDocumentError("no_text", f"{path.name} contains no text{scan}")
    return report
