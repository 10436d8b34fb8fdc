"""DOCX with python-docx: paragraphs and tables in document order."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from milepost.documents.errors import BadDocumentError
from milepost.documents.loaders.piece import LoadReport, Piece, Pieces, printable

if TYPE_CHECKING:
    from docx.table import Table
    from docx.text.paragraph import Paragraph

_BLOCKS_PER_PIECE: Final = 50
_SPAN_DIGITS: Final = 3


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
    return f"{_heading(block)}{text}\n\n" if text else ""


def _heading(paragraph: Paragraph) -> str:
    name = (paragraph.style.name or "") if paragraph.style is not None else ""
    if name == "Title":
        return "# "
    kind, _, level = name.partition(" ")
    if kind == "Heading" and level.isdigit():
        return "#" * min(int(level), 6) + " "
    return "- " if name.startswith("List") else ""


def _rows(table: Table) -> Iterator[str]:
    for row in table.rows:
        cells = []
        before = None
        for cell in row.cells:
            if cell._tc is not before:  # python-docx returns a merged cell once for each column it spans
                cells.append(" ".join(printable(cell.text).split()))
            before = cell._tc
        if any(cells):
            yield " | ".join(cells)
