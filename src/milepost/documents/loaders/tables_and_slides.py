"""XLSX workbooks and PPTX presentations."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from milepost.documents.errors import BadDocumentError
from milepost.documents.file_types import check_archive
from milepost.documents.loaders import LoadReport, Piece, Pieces, printable, without_headings
from milepost.documents.loaders.html import DAMAGED
from milepost.documents.loaders.table_header import NAME_CHARACTERS, labelled

_ROWS_PER_PIECE: Final = 500
_MAX_ROWS: Final = 1_048_576
_MAX_COLUMNS: Final = 1000
_MAX_GROUPS: Final = 20


def load_xlsx(path: Path, *, encoding: str | None = None) -> Pieces:
    """Yield a workbook sheet by sheet, each row with the names in the first one. The unit is sheets.

    Cells have their stored values; formulas are not computed.
    """
    import openpyxl

    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path.name)
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            sheets = workbook.worksheets
            for number, sheet in enumerate(sheets, 1):
                yield Piece(f"# {_text(sheet.title)}\n\n", number - 1, len(sheets))
                rows = _rows(sheet)
                while block := list(islice(rows, _ROWS_PER_PIECE)):
                    yield Piece("".join(f"{row}\n" for row in block), number - 1, len(sheets))
                yield Piece("\n", number, len(sheets))
            title = printable(workbook.properties.title or "").strip()[:300]
        finally:
            workbook.close()
    except BadDocumentError:
        raise
    except (*DAMAGED, zlib.error, AttributeError, TypeError, IndexError) as error:
        raise BadDocumentError("corrupt_document", f"{path.name} is a damaged XLSX: {error}") from error
    return LoadReport("xlsx", title=title)


def _rows(sheet: Any) -> Iterator[str]:
    """Yield the rows that have text. The first of several cells names the columns."""
    names: list[str] = []
    for values in islice(sheet.iter_rows(max_col=_MAX_COLUMNS, values_only=True), _MAX_ROWS):
        cells = [_text(value) for value in values]
        if not any(cells):
            continue
        if names:
            yield labelled(names, [*cells, *[""] * (len(names) - len(cells))])
        else:
            names = [name[:NAME_CHARACTERS] for name in cells] if sum(map(bool, cells)) > 1 else []
            yield without_headings(" | ".join(filter(None, cells)))


def _text(value: Any) -> str:
    return "" if value is None else " ".join(printable(str(value)).split())


def load_pptx(path: Path, *, encoding: str | None = None) -> Pieces:
    """Yield a presentation slide by slide: title, texts, tables and notes. The unit is slides; each is a page."""
    import pptx
    from lxml.etree import LxmlError
    from pptx.exc import PackageNotFoundError, PythonPptxError

    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path.name)
        presentation = pptx.Presentation(str(path))
        slides = list(presentation.slides)
        for number, slide in enumerate(slides, 1):
            title = slide.shapes.title
            parts = [f"# {_text(title.text_frame.text)}" if title is not None and _text(title.text_frame.text) else ""]
            parts += [text for shape in slide.shapes if title is None or shape.shape_id != title.shape_id
                      for text in _shape_texts(shape, 0)]  # fmt: skip
            if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
                parts.append(without_headings(printable(slide.notes_slide.notes_text_frame.text)))
            text = "".join(f"{part}\n\n" for part in parts if part.strip())
            yield Piece(text, number, len(slides), page=number)
        name = printable(presentation.core_properties.title or "").strip()[:300]
    except BadDocumentError:
        raise
    except (*DAMAGED, LxmlError, PackageNotFoundError, PythonPptxError, AttributeError, TypeError, IndexError) as error:
        raise BadDocumentError("corrupt_document", f"{path.name} is a damaged PPTX: {error}") from error
    return LoadReport("pptx", title=name, pages=len(slides))


def _shape_texts(shape: Any, depth: int) -> Iterator[str]:
    """Yield the texts of a shape, a table or a group of shapes."""
    if hasattr(shape, "shapes") and depth < _MAX_GROUPS:
        for inner in shape.shapes:
            yield from _shape_texts(inner, depth + 1)
    elif getattr(shape, "has_table", False):
        rows = [[_text(cell.text) for cell in row.cells] for row in shape.table.rows]
        names = rows[0] if shape.table.first_row and len(rows) > 1 else []
        yield "\n".join(labelled(names if number else [], row) for number, row in enumerate(rows))
    elif shape.has_text_frame:
        yield without_headings(printable(shape.text_frame.text.replace("\v", "\n")))
