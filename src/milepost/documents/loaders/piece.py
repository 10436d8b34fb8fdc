"""The pieces of text and the report that every loader returns."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, TypeAlias

from milepost.documents.file_types import Format

# Control characters such as NUL, and lone surrogates, which UTF-8 cannot encode.
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

    `size` is in bytes; `warnings` are among `extension_mismatch`, `encoding_guessed`, `failed_pages`.
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
