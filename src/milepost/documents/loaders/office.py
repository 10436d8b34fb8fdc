"""DOCX and ODT documents."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

from milepost.documents.errors import BadDocumentError
from milepost.documents.file_types import check_archive
from milepost.documents.loaders import LoadReport, Piece, Pieces, as_code, printable, without_headings
from milepost.documents.loaders.html import DAMAGED
from milepost.documents.loaders.table_header import NAME_CHARACTERS, labelled

if TYPE_CHECKING:
    from docx.table import Table
    from docx.text.paragraph import Paragraph


_BLOCKS_PER_PIECE: Final = 50
_SPAN_DIGITS: Final = 3
_CODE_STYLES: Final = frozenset({"Source Code", "HTML Preformatted", "Code", "Plain Text"})
_HEADER_ROWS: Final = 3
"""Tables with fewer rows need no names of columns."""
_NAME_LENGTH: Final = 60
_FIRST_ROW_LOOK: Final = 0x20


def load_docx(path: Path, *, encoding: str | None = None) -> Pieces:
    """Yield a DOCX in pieces of some blocks. The unit is blocks (paragraphs and tables). The file declares its own encoding."""
    import docx
    from docx.opc.exceptions import PackageNotFoundError
    from docx.oxml.ns import qn
    from lxml.etree import LxmlError

    try:
        document = docx.Document(str(path))
        for span in document.element.body.iter(qn("w:gridSpan")):
            if len(span.get(qn("w:val"), "")) > _SPAN_DIGITS:  # python-docx returns a cell once for each column
                raise BadDocumentError(
                    "corrupt_document", f"{path.name} is a damaged DOCX: a cell spans too many columns"
                )
        _restore_entities(document.element.body)
        total = len(document.element.body)
        title = printable(document.core_properties.title or "").strip()[:300]
        blocks = document.iter_inner_content()
        done = 0
        while block := list(islice(blocks, _BLOCKS_PER_PIECE)):
            done += len(block)
            yield Piece("".join(_block_text(item) for item in block), min(done, total), total)
    except BadDocumentError:
        raise
    except (
        LxmlError, PackageNotFoundError, zipfile.BadZipFile, zlib.error, KeyError, ValueError,
        AttributeError, TypeError, IndexError, EOFError, NotImplementedError, RecursionError,
    ) as error:  # fmt: skip
        raise BadDocumentError("corrupt_document", f"{path.name} is a damaged DOCX: {error}") from error
    return LoadReport("docx", title=title)


def _block_text(block: Paragraph | Table) -> str:
    from docx.table import Table

    if isinstance(block, Table):
        return "\n".join(_rows(block)) + "\n\n"
    text = printable(block.text).strip()
    style = (block.style.name or "") if block.style is not None else ""
    mark = _mark(style)
    if not mark:
        text = as_code(text) if style in _CODE_STYLES else without_headings(text)
    return f"{mark}{text}\n\n" if text.strip() else ""


def _restore_entities(body: Any) -> None:
    """Replace references to entities, which are not resolved, by their names. The text after one would be lost."""
    from lxml import etree

    for entity in list(body.iter(etree.Entity)):
        text = f"{entity.text}{entity.tail or ''}"
        parent, before = entity.getparent(), entity.getprevious()
        if before is not None:
            before.tail = (before.tail or "") + text
        else:
            parent.text = (parent.text or "") + text
        entity.tail = None
        parent.remove(entity)


def _mark(name: str) -> str:
    """Return what a paragraph of a style begins with."""
    if name == "Title":
        return "# "
    kind, _, level = name.partition(" ")
    if kind == "Heading" and level.isdigit():
        return "#" * min(int(level), 6) + " "
    return "- " if name.startswith("List") else ""


def _rows(table: Table) -> Iterator[str]:
    rows = list(_cells(table))
    names = _names(table, rows)
    for number, cells in enumerate(rows):
        yield labelled(names, cells) if names and number else " | ".join(cells)


def _names(table: Table, rows: list[list[str]]) -> list[str]:
    """Return the names of columns: a first row that is marked as header, or looks like one."""
    from docx.oxml.ns import qn

    # python-docx shows the elements of a table and of a cell by no public name.
    header = rows[0] if len(rows) >= _HEADER_ROWS else []
    if table._tbl.find(f".//{qn('w:tblHeader')}") is not None:
        return header if all(len(name) <= NAME_CHARACTERS for name in header) else []
    look = table._tbl.tblPr.find(qn("w:tblLook"))
    is_first_row = look is not None and (
        look.get(qn("w:firstRow")) == "1" or int(look.get(qn("w:val")) or "0", 16) & _FIRST_ROW_LOOK != 0
    )
    is_plausible = len(set(header)) == len(header) > 1 and all(0 < len(name) <= _NAME_LENGTH for name in header)
    return header if is_first_row and is_plausible else []


def _cells(table: Table) -> Iterator[list[str]]:
    """Yield the texts of the cells of each row that has text."""
    for row in table.rows:
        cells = []
        before = None
        for cell in row.cells:
            if cell._tc is not before:  # python-docx returns a merged cell once for each column it spans
                cells.append(" ".join(printable(cell.text).split()))
            before = cell._tc
        if any(cells):
            yield cells


_TEXT: Final = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE: Final = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_OFFICE: Final = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_MANIFEST: Final = "{urn:oasis:names:tc:opendocument:xmlns:manifest:1.0}encryption-data"
_DC: Final = "{http://purl.org/dc/elements/1.1/}"
_UNREAD: Final = frozenset({f"{_TEXT}tracked-changes", f"{_OFFICE}annotation", f"{_TEXT}sequence-decls"})
_PIECE_CHARACTERS: Final = 32 * 1024


def load_odt(path: Path, *, encoding: str | None = None) -> Pieces:
    """Yield an ODT in pieces. The unit is bytes of its unpacked content. The file declares its own encoding."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path.name)
            if _is_locked(archive):
                raise BadDocumentError("encrypted", f"{path.name} is protected by a password")
            total = archive.getinfo("content.xml").file_size
            ready: list[str] = []
            size = 0
            with archive.open("content.xml") as content:
                for block in _blocks(ElementTree.iterparse(content, events=("start", "end"))):
                    ready.append(block)
                    size += len(block)
                    if size >= _PIECE_CHARACTERS:
                        yield Piece("".join(ready), min(content.tell(), total), total)
                        ready, size = [], 0
            yield Piece("".join(ready), total, total)
            title = _title(archive)
    except BadDocumentError:
        raise
    except DAMAGED as error:
        raise BadDocumentError("corrupt_document", f"{path.name} is a damaged ODT: {error}") from error
    return LoadReport("odt", title=title)


def _blocks(events: Iterator[tuple[str, ElementTree.Element]]) -> Iterator[str]:
    """Yield headings, paragraphs and table rows, freeing each part of the tree after use."""
    open_blocks = unread = rows = 0
    in_list = in_header = 0
    names: list[str] = []
    for event, element in events:
        tag = element.tag
        if event == "start":
            unread += tag in _UNREAD
            rows += tag == f"{_TABLE}table-row"
            in_header += tag == f"{_TABLE}table-header-rows"
            if tag == f"{_TABLE}table" and not rows:
                names = []
            open_blocks += tag in (f"{_TEXT}p", f"{_TEXT}h")
            in_list += tag == f"{_TEXT}list-item"
            continue
        in_list -= tag == f"{_TEXT}list-item"
        in_header -= tag == f"{_TABLE}table-header-rows"
        if tag in _UNREAD:
            unread -= 1
            tail = element.tail
            element.clear()
            element.tail = tail
        elif tag == f"{_TABLE}table-row":
            rows -= 1
            if not rows and not unread:
                cells = [_cell_text(cell) for cell in element.iter(f"{_TABLE}table-cell")]
                yield labelled([] if in_header else names, cells) + "\n"
                if in_header:
                    names = [name[:NAME_CHARACTERS] for name in cells]
                element.clear()
        elif tag == f"{_TABLE}table" and not rows and not unread:
            yield "\n"
        elif tag in (f"{_TEXT}p", f"{_TEXT}h"):
            open_blocks -= 1
            if not open_blocks and not rows and not unread:
                text = printable(_inline(element)).strip()
                if text:
                    prefix = _prefix(element, in_list)
                    style = element.attrib.get(f"{_TEXT}style-name", "")
                    if not prefix:
                        text = as_code(text) if style.startswith("Preformatted") else without_headings(text)
                    yield f"{prefix}{text}\n\n"
                element.clear()


def _prefix(element: ElementTree.Element, in_list: int) -> str:
    if element.tag == f"{_TEXT}h":
        level = element.attrib.get(f"{_TEXT}outline-level", "1")
        return "#" * (min(int(level), 6) if level.isdigit() and level != "0" else 1) + " "
    return "- " if in_list else ""


def _cell_text(cell: ElementTree.Element) -> str:
    return " ".join(printable(" ".join(_inline(part) for part in cell.iter(f"{_TEXT}p"))).split())


def _inline(element: ElementTree.Element) -> str:
    parts: list[str] = [element.text or ""]
    for child in element:
        if child.tag == f"{_TEXT}s":
            count = child.attrib.get(f"{_TEXT}c", "1")
            parts.append(" " * (min(int(count), 100) if count.isdigit() else 1))
        elif child.tag == f"{_TEXT}tab":
            parts.append("\t")
        elif child.tag == f"{_TEXT}line-break":
            parts.append("\n")
        elif child.tag not in _UNREAD:
            parts.append(_inline(child))
        parts.append(child.tail or "")
    return "".join(parts)


def _is_locked(archive: zipfile.ZipFile) -> bool:
    if "META-INF/manifest.xml" not in archive.namelist():
        return False
    return any(True for _ in ElementTree.fromstring(archive.read("META-INF/manifest.xml")).iter(_MANIFEST))


def _title(archive: zipfile.ZipFile) -> str:
    if "meta.xml" not in archive.namelist():
        return ""
    meta = ElementTree.fromstring(archive.read("meta.xml"))
    return printable(meta.findtext(f".//{_DC}title") or "").strip()[:300]
