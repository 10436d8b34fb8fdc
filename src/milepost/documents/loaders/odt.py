"""ODT with the standard library: one pass over `content.xml` without keeping it in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from milepost.documents.errors import BadDocumentError
from milepost.documents.file_types import check_archive
from milepost.documents.loaders.epub import DAMAGED
from milepost.documents.loaders.piece import LoadReport, Piece, Pieces, printable

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
    in_list = 0
    for event, element in events:
        tag = element.tag
        if event == "start":
            unread += tag in _UNREAD
            rows += tag == f"{_TABLE}table-row"
            open_blocks += tag in (f"{_TEXT}p", f"{_TEXT}h")
            in_list += tag == f"{_TEXT}list-item"
            continue
        in_list -= tag == f"{_TEXT}list-item"
        if tag in _UNREAD:
            unread -= 1
            tail = element.tail
            element.clear()
            element.tail = tail
        elif tag == f"{_TABLE}table-row":
            rows -= 1
            if not rows and not unread:
                yield " | ".join(_cell_text(cell) for cell in element.iter(f"{_TABLE}table-cell")) + "\n"
                element.clear()
        elif tag == f"{_TABLE}table" and not rows and not unread:
            yield "\n"
        elif tag in (f"{_TEXT}p", f"{_TEXT}h"):
            open_blocks -= 1
            if not open_blocks and not rows and not unread:
                text = printable(_inline(element)).strip()
                if text:
                    yield f"{_prefix(element, in_list)}{text}\n\n"
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
