"""JSON, Jupyter notebooks and e-mail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email import message_from_bytes, policy
from itertools import islice
from pathlib import Path
from typing import Any, Final

from milepost.documents.errors import BadDocumentError
from milepost.documents.loaders import LoadReport, Piece, Pieces, as_code, printable, without_headings
from milepost.documents.loaders.html import markup_to_text
from milepost.documents.loaders.text import encoding_warnings, find_encoding, load_text

_RECORDS_PER_PIECE: Final = 200
_MAX_DEPTH: Final = 50
_MAX_OUTPUT: Final = 10_000
_HEADERS: Final = ("From", "To", "Cc", "Date")


def load_json(path: Path, *, encoding: str | None = None) -> Pieces:
    """Yield JSON, or JSON lines, as ``name: value`` lines with a paragraph for each record. The unit is records.

    Text that is not JSON, such as one with comments, is read as it is.
    """
    found = find_encoding(path, encoding=encoding)
    content = path.read_bytes().decode(found.name, "replace")
    try:
        records = _records(content)
    except (ValueError, RecursionError):
        return (yield from load_text(path, encoding=encoding))
    total = len(records)
    paragraphs = ("\n".join(_lines(record, "", 0)) for record in records)
    done = 0
    while block := list(islice(paragraphs, _RECORDS_PER_PIECE)):
        done += len(block)
        yield Piece("".join(f"{without_headings(printable(text))}\n\n" for text in block if text), done, total)
    return LoadReport("json", warnings=encoding_warnings(found))


def _records(content: str) -> list[Any]:
    """Return the items of a list, the lines of JSON lines, or the single value. Raises `ValueError`."""
    try:
        value = json.loads(content)
    except ValueError:
        return [json.loads(line) for line in content.splitlines() if line.strip()]
    return value if isinstance(value, list) else [value]


def _lines(value: Any, name: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _lines(inner, f"{name}.{key}"[-200:] if name else str(key)[:200], depth + 1)
    elif isinstance(value, list):
        if all(isinstance(item, (str, int, float)) for item in value):
            value = ", ".join(map(str, value))
            yield from _lines(value, name, depth + 1)
        else:
            for item in value:
                yield from _lines(item, name, depth + 1)
    elif value not in (None, ""):
        yield f"{name}: {value}" if name else str(value)


def load_ipynb(path: Path, *, encoding: str | None = None) -> Pieces:
    """Yield a notebook cell by cell: text as it is, code and text output as code. The unit is cells."""
    try:
        cells = json.loads(path.read_bytes())["cells"]
        total = len(cells)
        for done, cell in enumerate(cells, 1):
            parts = [_cell_text(cell)]
            parts += [as_code(text[:_MAX_OUTPUT]) for text in map(_output_text, cell.get("outputs", ())) if text]
            yield Piece("".join(f"{printable(part)}\n\n" for part in parts if part.strip()), done, total)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise BadDocumentError("corrupt_document", f"{path.name} is a damaged notebook: {error}") from error
    return LoadReport("ipynb")


def _cell_text(cell: dict[str, Any]) -> str:
    text = "".join(cell.get("source", ())).strip("\n")
    return text if cell.get("cell_type") == "markdown" else as_code(text) if text else ""


def _output_text(output: dict[str, Any]) -> str:
    return "".join(output.get("text") or output.get("data", {}).get("text/plain") or ()).strip("\n")


def load_eml(path: Path, *, encoding: str | None = None) -> Pieces:
    """Yield an e-mail: its subject, who wrote it to whom and when, its text, and the names of its attachments."""
    try:
        message = message_from_bytes(path.read_bytes(), policy=policy.default)
        subject = " ".join(str(message.get("Subject", "")).split())
        lines = [f"{name}: {' '.join(str(message[name]).split())}" for name in _HEADERS if message.get(name)]
        body = message.get_body(("plain", "html"))
        text = str(body.get_content()) if body is not None else ""
        if body is not None and body.get_content_subtype() == "html":
            text, _ = markup_to_text(text)
        else:
            text = without_headings(text)
        names = [name for part in message.iter_attachments() if (name := part.get_filename())]
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadDocumentError("corrupt_document", f"{path.name} is a damaged e-mail: {error}") from error
    parts = [f"# {subject}" if subject else "", "\n".join(lines), text.strip("\n")]
    parts += [f"Attachments: {', '.join(names)}"] if names else []
    yield Piece("".join(f"{printable(part)}\n\n" for part in parts if part.strip()), 1, 1)
    return LoadReport("eml", title=printable(subject)[:300])
