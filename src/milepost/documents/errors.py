"""Exceptions of document processing, and the error codes of documents."""

from __future__ import annotations

import re
from typing import Final

CODES: Final[dict[str, str]] = {
    "archive_too_large": "the archive unpacks to more than the limit",
    "binary_content": "neither text nor a known document format",
    "chunk_timeout": "splitting the text into chunks took longer than the limit",
    "corrupt_document": "the file is a damaged document of its format",
    "corrupt_pdf": "the PDF, or more than half of its pages, is damaged",
    "embedding_refused": "the embedding server refuses a part of the text",
    "empty_file": "the file is empty",
    "encrypted": "the file is protected by a password",
    "load_crashed": "the loader process died",
    "load_failed": "a parser failed unexpectedly",
    "load_timeout": "reading took longer than the limit",
    "no_text": "the document contains no text, for example a scan",
    "not_a_regular_file": "a dangling link, FIFO, socket, device or folder",
    "not_found": "the file does not exist",
    "out_of_memory": "reading took more memory than the limit",
    "text_too_large": "the text is far larger than the file, or a page repeats",
    "too_large": "the file is larger than the limit",
    "unreadable": "no permission, or a disk error",
    "unsupported_archive": "a zip file that is not a document, or a gzip file without text",
}
"""Every value of `BadDocumentError.code`, with its meaning."""
_UNDECODED: Final = re.compile("[\x00-\x1f\x7f\udc80-\udcff]")


def printable_name(name: str) -> str:
    """Return a file name as one line of text. Control characters and bytes that are not UTF-8 are escaped as in a URI
    (``%0A``).
    """
    return _UNDECODED.sub(lambda byte: f"%{ord(byte[0]) & 0xFF:02X}", name)


class BadDocumentError(ValueError):
    """Raised for a document that cannot be used, while others can.

    `code` is one of `CODES`, and `message` is one sentence for people. The text of the exception is ``code: message``.
    """

    def __init__(self, code: str, message: str) -> None:
        if code not in CODES:
            raise KeyError(f"{code!r} is not a document error code")
        message = printable_name(message)
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[BadDocumentError], tuple[str, str]]:
        return BadDocumentError, (self.code, self.message)


class EmptyStoreError(ValueError):
    """Raised if the document store does not contain the required data. The message names the job to run first."""


class StoreBusyError(OSError):
    """Raised if the document store is locked, full or unavailable. The same call may succeed later."""


class GenerationChangedError(RuntimeError):
    """Raised if another generation of the index became active while a document was being prepared."""


class VersionVanishedError(RuntimeError):
    """Raised if another job published or removed the version that this one was preparing."""


class SupersededError(VersionVanishedError):
    """Raised if a run that began later has already written the same data."""
