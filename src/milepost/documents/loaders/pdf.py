"""PDF, page by page, with pypdfium2.

A page that cannot be read is counted and left out; more than half of them make the
whole document corrupt.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from milepost.documents.errors import BadDocument
from milepost.documents.loaders.piece import LoadReport, Piece, Pieces, printable

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

_HYPHEN_AT_LINE_END: Final = "\ufffe"


def load_pdf(path: Path) -> Pieces:
    """Yield a PDF page by page; units are pages."""
    failed = 0
    with _opened(path) as document:
        total = len(document)
        for number in range(1, total + 1):
            text = _page_text(document, number)
            if text is None:
                failed += 1
                text = ""
            yield Piece(f"{text}\n\n" if text else "", number, total, page=number)
        if failed * 2 > total:
            raise BadDocument("corrupt_pdf", f"{path.name}: {failed} of {total} pages cannot be read")
        title = _title(document)
    return LoadReport(
        "pdf", title=title, pages=total, failed_pages=failed, warnings=("failed_pages",) if failed else ()
    )


@contextmanager
def _opened(path: Path) -> Iterator[PdfDocument]:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        raise _why_not(path) from error
    try:
        yield document
    finally:
        document.close()


def _why_not(path: Path) -> BadDocument:
    """Ask PDFium once more: the helper reports a document without pages as the error before it."""
    import pypdfium2.raw as pdfium

    document = pdfium.FPDF_LoadDocument(os.fsencode(path), None)
    if document:
        pdfium.FPDF_CloseDocument(document)
        if _is_whole(path):
            return BadDocument("no_text", f"{path.name} has no pages")
        return BadDocument("corrupt_pdf", f"{path.name} has no page that can be found")
    if pdfium.FPDF_GetLastError() in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
        return BadDocument("encrypted", f"{path.name} asks for a password")
    return BadDocument("corrupt_pdf", f"{path.name} is damaged and cannot be opened")


def _page_text(document: PdfDocument, number: int) -> str | None:
    """The text of a page, or None when it cannot be read."""
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
    return printable(text).strip()


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
