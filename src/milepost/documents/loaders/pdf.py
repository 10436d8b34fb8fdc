"""PDF page by page with pypdfium2, without page furniture, and with its headings.

Unreadable pages are counted and skipped; more than half of them make the document corrupt.
"""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from milepost.documents.errors import BadDocumentError
from milepost.documents.loaders import LoadReport, Piece, Pieces, printable, without_headings

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument


_AROUND: Final = 8
_MIN_REPEATS: Final = 3
"""On how many of the pages around it a line of page furniture is repeated."""
_EDGE_LINES: Final = 2
_LINE_CHARACTERS: Final = 200
_DIGITS: Final = re.compile(r"\d+")
_WORDS: Final = re.compile(r"\w+")


class PageFurniture:
    """Drops running heads and page numbers: first and last lines that repeat on the pages around, except for digits.

    The first of each is kept, and so is a line without which the page would be empty.
    """

    def __init__(self) -> None:
        self._pages: deque[tuple[int, list[str]]] = deque()
        self._edges: deque[set[str]] = deque()
        self._counts: Counter[str] = Counter()
        self._kept: set[str] = set()
        self._waiting = 0

    def add(self, number: int, text: str) -> Iterator[tuple[int, str]]:
        """Add a page, and yield the (number, text) of the page whose surroundings are now known."""
        lines = text.split("\n") if text else []
        edges = {_form(line) for line in (*lines[:_EDGE_LINES], *lines[-_EDGE_LINES:])}
        self._pages.append((number, lines))
        self._edges.append(edges)
        self._counts.update(edges)
        if len(self._pages) > _AROUND:
            yield self._take()
        if len(self._edges) > 2 * _AROUND:
            self._counts.subtract(self._edges.popleft())

    def finish(self) -> Iterator[tuple[int, str]]:
        """Yield the pages that are left."""
        while self._pages:
            yield self._take()

    def _take(self) -> tuple[int, str]:
        number, lines = self._pages.popleft()
        first, last = 0, len(lines)
        while first < min(_EDGE_LINES, last) and self._is_furniture(lines[first]):
            first += 1
        while last > max(len(lines) - _EDGE_LINES, first) and self._is_furniture(lines[last - 1]):
            last -= 1
        body = "\n".join(lines[first:last]).strip()
        if not body:
            return number, "\n".join(lines)
        edges = [line for line in (*lines[:first], *lines[last:]) if _form(line) not in self._kept]
        self._kept.update(map(_form, edges))
        kept = set(edges)
        top, end = ([line for line in some if line in kept] for some in (lines[:first], lines[last:]))
        return number, "\n".join((*top, body, *end))

    def _is_furniture(self, line: str) -> bool:
        return self._counts[_form(line)] >= _MIN_REPEATS


def _form(line: str) -> str:
    return " ".join(_DIGITS.sub("#", line[:_LINE_CHARACTERS]).split())


def with_headings(text: str, headings: Sequence[tuple[int, str]]) -> str:
    """Return a page with its (level, title) headings as lines: where the title is in the text, else at the top."""
    lines = without_headings(text).split("\n")
    words = [_WORDS.findall(line.casefold()) for line in lines]
    top: list[str] = []
    at = 0
    for level, title in headings:
        heading = "#" * level + " " + title
        place, count = _find(words, _WORDS.findall(title.casefold()), at)
        if count:
            lines[place : place + count] = ["", heading, ""]
            words[place : place + count] = [[], [], []]
            at = place + 3
        else:
            top.append(heading + "\n")
    return "\n".join((*top, *lines)).strip("\n")


def _find(lines: list[list[str]], title: list[str], at: int) -> tuple[int, int]:
    """Return (position, number) of the lines, one or two, that consist of a title and at most its number."""
    for position in range(at, len(lines)):
        for count in (1, 2):
            line = [word for some in lines[position : position + count] for word in some]
            if title and line[-len(title) :] == title and all(map(_is_numbering, line[: -len(title)])):
                return position, count
    return 0, 0


def _is_numbering(word: str) -> bool:
    """Return whether a word can be part of the number of a heading, such as `Chapter 3` or `A`."""
    return word.isdecimal() or len(word) == 1 or word in ("chapter", "appendix", "part", "section")


_MAX_EQUAL_PAGES: Final = 100
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
            if seen[hash(text)] > _MAX_EQUAL_PAGES:
                raise BadDocumentError(
                    "text_too_large", f"{path.name} repeats a page more than {_MAX_EQUAL_PAGES} times"
                )
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
