"""Read documents of all formats as text, piece by piece.

`load` detects the format and yields the pieces of its loader, a plugin that imports its parser only when a file needs
it. It runs in the calling process;
`milepost.documents.loader_process` protects against parsers that hang or crash.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from milepost import plugins
from milepost.documents.errors import BadDocumentError
from milepost.documents.file_types import MAX_BYTES, detect_type, failed_read
from milepost.documents.loaders.piece import LoadReport, Piece, Pieces

__all__ = ["LoadReport", "Piece", "Pieces", "load"]


def load(path: Path | str, *, encoding: str | None = None, max_bytes: int = MAX_BYTES) -> Pieces:
    """Yield the text of a document piece by piece, and return a `LoadReport`.

    The document's text is the pieces joined without a separator. Headings are lines that begin with `#`, table cells
    are joined with ` | `. `encoding` is for texts that are not UTF-8 and do not declare their encoding.

    Raises `BadDocumentError`. Parsers may raise other exceptions for damaged files.
    """
    path = Path(path)
    recognised = detect_type(path, max_bytes=max_bytes)
    loader = plugins.find("milepost.loaders", recognised.format)
    assert loader is not None, "only formats with a loader are detected"
    pieces: Pieces = loader.load()(path, encoding=encoding)
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
