"""The names that documents, texts, versions and vectors go by.

All are hashes of what they stand for, so two jobs that do the same work write the same rows.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from milepost.documents.chunks import CHUNKER_VERSION

LOADER_VERSION: Final = 2
_BLOCK: Final = 1024 * 1024


def document_id(uri: str) -> str:
    """A document's id, from its URI or the key that it was given."""
    return _hash("document", uri)


def content_hash(path: Path) -> str:
    """The SHA-256 of a file, read in blocks. Raises `OSError`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def text_id(document: str, content: str, encoding: str | None) -> str:
    """The id of a document's text: its content and the way it was loaded."""
    return _hash("text", document, content, encoding or "", str(LOADER_VERSION))


def fingerprint(text: str, settings: dict[str, Any]) -> str:
    """What stands for content and settings: the same fingerprint means there is nothing to do."""
    return _hash("fingerprint", text, *(f"{name}={settings[name]}" for name in sorted(settings)))


def version_id(generation: int, document: str, print_of: str) -> str:
    """The id of a document in the making."""
    return _hash("version", str(generation), document, print_of)


def vector_key(model: str, text: str) -> bytes:
    """The key under which the vector of a text is kept: SHA-256 of model and text."""
    return hashlib.sha256(f"{model}\0{text}".encode()).digest()


def chunk_settings(tokens: int) -> dict[str, Any]:
    """The settings of a generation that decide how text is cut."""
    return {"chunk_tokens": tokens, "chunker": CHUNKER_VERSION}


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]
