"""What every loader yields and returns. Knows no format."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, TypeAlias

from milepost.documents.formats import Format

# Controls that no text needs (NUL and its like, and lone surrogates, which no UTF-8 can hold).
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ue000-\uf8ff\ufffe\uffff\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a document's text, and how far its loader has come.

    `done` of `total` is in the loader's own unit: pages of a PDF, bytes of a text,
    blocks of a DOCX. `page` counts from 1, where the format has pages.
    """

    text: str
    done: int
    total: int
    page: int | None = None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a loader has to say about a document once it has read it.

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
    """Drop the characters that no text needs (the icons of a web page's own font too) and that stores refuse."""
    return _UNPRINTABLE.sub("", text)
