"""PDF page by page with pypdfium2.

Unreadable pages are counted and skipped; more than half of them make the document corrupt.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from milepost.documents.errors import BadDocumentError
from milepost.documents.loaders import LoadReport, Piece, Pieces, printable
from milepost.documents.loaders.page_layout import PageFurniture, with_headings

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

_REPEATS: Final = 100
_PAGE_CHARACTERS: Final = 200
"""Pages with fewer characters, such as blank ones, may repeat more often."""
_HYPHEN_AT_LINE_END: Final = "\ufffe"
_LEADERS: Final = re.compile(r"[ \t]?\.(?:[ \t]?\.){4,}[ \t]?")
"""The dots between a title and its page in a table of contents."""
_MAX_LEVELS: Final = 6
_MAX_HEADINGS: Final = 10_000
_TITLE_CHARACTERS: Final = 200


def load_pdf(path: Path, *, encoding: str | None = None) -> Pieces:
    """Yield a PDF page by page. The unit is pages. The file declares its own encoding."""
    failed = 0
    seen: Counter[int] = Counter()
    with _opened(path) as document:
        total = len(document)
        furniture = PageFurniture()
        headings = _outline(document)
        for number in range(1, total + 1):
            text = _page_text(document, number)
            if text is None:
                failed += 1
                text = ""
            seen[hash(text)] += len(text) >= _PAGE_CHARACTERS
            if seen[hash(text)] > _REPEATS:
                raise BadDocumentError("text_too_large", f"{path.name} repeats a page more than {_REPEATS} times")
            pages = list(furniture.add(number, text))
            yield from (_piece(page, body, headings, number, total) for page, body in pages)
            if not pages:
                yield Piece("", number, total)
        yield from (_piece(page, body, headings, total, total) for page, body in furniture.finish())
        if failed * 2 > total:
            raise BadDocumentError("corrupt_pdf", f"{path.name}: {failed} of {total} pages are unreadable")
        title = _title(document)
    return LoadReport(
        "pdf", title=title, pages=total, failed_pages=failed, warnings=("failed_pages",) if failed else ()
    )


def _piece(page: int, text: str, headings: dict[int, list[tuple[int, str]]], done: int, total: int) -> Piece:
    """Return the piece of a page, with the headings that the outline has for it."""
    text = with_headings(text, headings.get(page, ()))
    return Piece(f"{text}\n\n" if text else "", done, total, page=page if text else None)


def _outline(document: PdfDocument) -> dict[int, list[tuple[int, str]]]:
    """Return the (level, title) pairs of the outline by page, counted from 1."""
    import pypdfium2

    found: dict[int, list[tuple[int, str]]] = {}
    try:
        for bookmark in islice(document.get_toc(max_depth=_MAX_LEVELS), _MAX_HEADINGS):
            target = bookmark.get_dest()
            page = target.get_index() if target is not None else None
            title = " ".join(printable(bookmark.get_title()).split())[:_TITLE_CHARACTERS]
            if page is not None and title:
                found.setdefault(page + 1, []).append((bookmark.level + 1, title))
    except (pypdfium2.PdfiumError, ValueError, RecursionError):
        pass  # the text is there without headings
    return found


@contextmanager
def _opened(path: Path) -> Iterator[PdfDocument]:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        raise _open_error(path) from error
    try:
        yield document
    finally:
        document.close()


def _open_error(path: Path) -> BadDocumentError:
    """Ask PDFium again, because pypdfium2 reports a document without pages as the previous error."""
    import pypdfium2.raw as pdfium

    document = pdfium.FPDF_LoadDocument(os.fsencode(path), None)
    if document:
        pdfium.FPDF_CloseDocument(document)
        if _is_whole(path):
            return BadDocumentError("no_text", f"{path.name} has no pages")
        return BadDocumentError("corrupt_pdf", f"{path.name} has no readable page")
    if pdfium.FPDF_GetLastError() in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
        return BadDocumentError("encrypted", f"{path.name} is protected by a password")
    return BadDocumentError("corrupt_pdf", f"{path.name} is damaged and cannot be opened")


def _page_text(document: PdfDocument, number: int) -> str | None:
    """Return the text of a page, or None if it is unreadable."""
    import pypdfium2

    try:
        page = document[number - 1]
        try:
            text_page = page.get_textpage()
            try:
                text = text_page.get_text_bounded()
            finally:
                text_page.close()
        finally:
            page.close()
    except (pypdfium2.PdfiumError, ValueError, IndexError):
        return None
    text = text.replace(f"{_HYPHEN_AT_LINE_END}\r\n", "").replace("\r\n", "\n").replace("\r", "\n")
    return printable(_LEADERS.sub(" ... ", text)).strip()


def _title(document: PdfDocument) -> str:
    import pypdfium2

    try:
        return printable(document.get_metadata_value("Title")).strip()[:300]
    except (pypdfium2.PdfiumError, ValueError):
        return ""


def _is_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2048))
        return b"%%EOF" in file.read()
