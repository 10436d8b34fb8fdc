"""What can be wrong with a document, as one exception with a code.

Owns the codes and the exception. Knows no format, no store and no job.

    BadDocument (ValueError)       this document cannot be used; the others can
    EmptyStore (ValueError)        the document store has nothing yet for what is asked of it
    StoreBusy (OSError)            the document store is locked or full for now: try again
    GenerationChanged (RuntimeError)  the index was switched while this document was being prepared
    VersionVanished (RuntimeError) another job has published or removed what this one prepared
"""

from __future__ import annotations

import re
from typing import Final

CODES: Final[dict[str, str]] = {
    "archive_too_large": "an archive that unpacks to more than is allowed",
    "binary_content": "not text, and no document format that is known",
    "corrupt_document": "a DOCX, EPUB, ODT or CSV that is damaged",
    "corrupt_pdf": "a PDF that is damaged, or of which more than half the pages are",
    "empty_file": "zero bytes",
    "encrypted": "a password is needed to read it",
    "load_crashed": "the process that read it died",
    "load_failed": "a parser failed in a way that nobody foresaw",
    "load_timeout": "reading it took longer than is allowed",
    "no_text": "no text in it, such as a scan or a document without pages",
    "not_a_regular_file": "a dangling link, FIFO, socket, device or folder",
    "not_found": "there is no such file",
    "out_of_memory": "reading it took more memory than is allowed",
    "too_large": "more bytes than is allowed",
    "unreadable": "no permission, or the disk failed",
    "unsupported_archive": "a zip file that is no document",
}
"""Every code that `BadDocument.code` can have, with its meaning."""
_UNDECODED: Final = re.compile("[\udc80-\udcff]")


def readable(name: str) -> str:
    """A file's name as text that can be kept: a byte of it that is no UTF-8 as in a URI, ``%FF``."""
    return _UNDECODED.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", name)


class BadDocument(ValueError):
    """A document cannot be used.

    `code` is one of `CODES`; `message` is one sentence for people. The text of
    the exception is ``code: message``.
    """

    def __init__(self, code: str, message: str) -> None:
        if code not in CODES:
            raise KeyError(f"{code!r} is no code of a bad document")
        message = readable(message)
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[BadDocument], tuple[str, str]]:
        return BadDocument, (self.code, self.message)


class EmptyStore(ValueError):
    """The document store has nothing yet for what is asked of it; the message says which job makes it."""


class StoreBusy(OSError):
    """The document store is locked, full or away for now; the same call may work in a moment."""


class GenerationChanged(RuntimeError):
    """Another generation of the index became active while a document was being prepared."""


class VersionVanished(RuntimeError):
    """Another job has published or removed the version that this one was preparing."""
