"""Ids of documents, texts, versions and vectors.

All are hashes of what they identify, so two jobs that do the same work write the same rows.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from milepost.documents.chunking import CHUNKER_VERSION

LOADER_VERSION: Final = 4
_BLOCK: Final = 1024 * 1024


def document_id(uri: str, owner: str = "") -> str:
    """Return the id of a document with this URI or key. Owners have documents of their own under the same URI."""
    return _hash("owned document", owner, uri) if owner else _hash("document", uri)


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file. Raises `OSError`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def text_id(document: str, content: str, encoding: str | None) -> str:
    """Return the id of a document's text, from its content and how it was loaded."""
    return _hash("text", document, content, encoding or "", str(LOADER_VERSION))


def fingerprint(text: str, settings: dict[str, Any]) -> str:
    """Return a hash of content and settings. An equal fingerprint means that there is nothing to do."""
    return _hash("fingerprint", text, *(f"{name}={settings[name]}" for name in sorted(settings)))


def version_id(generation: int, document: str, print_of: str) -> str:
    """Return the id of a document version."""
    return _hash("version", str(generation), document, print_of)


def vector_key(model: str, text: str) -> bytes:
    """Return the key of a text's vector: SHA-256 of model and text."""
    return hashlib.sha256(f"{model}\0{text}".encode()).digest()


def chunk_settings(tokens: int) -> dict[str, Any]:
    """Return the settings of a generation that affect how text is split."""
    return {"chunk_tokens": tokens, "chunker": CHUNKER_VERSION}


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]
