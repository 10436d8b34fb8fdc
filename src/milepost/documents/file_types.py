"""Detect the type of a file from its content, and refuse files that cannot be documents."""

from __future__ import annotations

import errno
import gzip
import os
import re
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from milepost import plugins
from milepost.documents.errors import BadDocumentError

Format = str
"""The name of a loader: text, csv, html, pdf and so on, or the extension that a plugin reads, without the dot."""

MAX_BYTES: Final = 50 * 1024 * 1024
MAX_UNPACKED_BYTES: Final = 256 * 1024 * 1024
MAX_ARCHIVE_ENTRIES: Final = 10_000
MAX_COMPRESSION: Final = 200
"""How many times larger than its archive content may be, beyond `SMALL_BYTES`."""
SMALL_BYTES: Final = 16 * 1024 * 1024
"""Content up to this size may be compressed to any degree."""
HEAD_BYTES: Final = 64 * 1024

_BY_EXTENSION: Final[dict[str, Format]] = {
    ".txt": "text", ".text": "text", ".log": "text", ".rst": "text",
    ".md": "markdown", ".markdown": "markdown",
    ".csv": "csv", ".tsv": "csv",
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".pdf": "pdf", ".docx": "docx", ".epub": "epub", ".odt": "odt", ".xlsx": "xlsx", ".pptx": "pptx",
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".ipynb": "ipynb", ".eml": "eml",
}  # fmt: skip
_ARCHIVES: Final = frozenset({"docx", "epub", "odt", "xlsx", "pptx"})
_OFFICE_PARTS: Final = {
    "word/document.xml": "docx", "META-INF/container.xml": "epub", "xl/workbook.xml": "xlsx",
    "ppt/presentation.xml": "pptx",
}  # fmt: skip
_BY_TEXT_EXTENSION: Final = frozenset({"markdown", "csv", "json", "ipynb", "eml"})

_ODT: Final = b"application/vnd.oasis.opendocument.text"
_EPUB: Final = b"application/epub+zip"
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_BOMS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_HTML_START: Final = re.compile(rb"<(?:!doctype\s+html|html)\b", re.I)
_TAG: Final = re.compile(rb"<[a-zA-Z!/][^<]*>")
_CONTROL: Final = bytes(set(range(32)) - {8, 9, 10, 12, 13, 27})


@dataclass(frozen=True, slots=True)
class DetectedType:
    """The type of a regular file, its size in bytes, warnings, and whether it is packed with gzip."""

    format: Format
    size: int
    warnings: tuple[str, ...] = ()
    is_packed: bool = False


def open_regular(path: Path, max_bytes: int = MAX_BYTES) -> BinaryIO:
    """Open a regular file of 1 to `max_bytes` bytes for reading. Never blocks on a FIFO.

    Raises `BadDocumentError` with `not_found`, `not_a_regular_file`, `unreadable`, `empty_file` or `too_large`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise _cannot_open(path, error) from error
    return checked_file(descriptor, path, max_bytes)


def checked_file(descriptor: int, path: Path, max_bytes: int) -> BinaryIO:
    """Return a file for a descriptor. The descriptor is closed if it is not a regular file of 1 to `max_bytes` bytes.

    Raises `BadDocumentError` with `not_a_regular_file`, `empty_file` or `too_large`.
    """
    file = os.fdopen(descriptor, "rb", closefd=True) if _is_regular(descriptor) else None
    if file is None:
        os.close(descriptor)
        raise BadDocumentError("not_a_regular_file", f"{path.name} is no regular file")
    size = os.fstat(descriptor).st_size
    if size == 0 or size > max_bytes:
        file.close()
        if size == 0:
            raise BadDocumentError("empty_file", f"{path.name} has no content")
        raise BadDocumentError("too_large", f"{path.name} has {size:,} bytes, {max_bytes:,} are allowed (max_bytes)")
    return file


def detect_type(path: Path, *, max_bytes: int = MAX_BYTES) -> DetectedType:
    """Return the type of a file, detected from its content.

    The extension decides between text formats, and if it belongs to the document loader of a plugin.

    Raises `BadDocumentError` with the codes of `open_regular` and `binary_content`, `corrupt_pdf`, `corrupt_document`,
    `encrypted`, `unsupported_archive`, `archive_too_large`.
    """
    extension = path.suffix.lower()
    if extension == ".gz":
        return _packed_type(path, max_bytes)
    expected = _BY_EXTENSION.get(extension)
    if expected is None and plugins.find("milepost.loaders", extension[1:]) is not None:
        expected = extension[1:]
    with open_regular(path, max_bytes) as file:
        try:
            head = file.read(HEAD_BYTES)
            is_detected = expected is None or extension in _BY_EXTENSION
            found = _from_head(head, file, path, expected) if is_detected else extension[1:]
        except OSError as error:
            raise failed_read(path.name, error) from error
        size = os.fstat(file.fileno()).st_size
    odd = expected not in (None, found) and not {expected, found} <= {"text", "markdown"}
    return DetectedType(found, size, ("extension_mismatch",) if odd else ())


def _packed_type(path: Path, max_bytes: int) -> DetectedType:
    """Return the type of the text in a gzip file."""
    with open_regular(path, max_bytes) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with gzip.open(file) as unpacked:
                head = unpacked.read(HEAD_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise BadDocumentError("corrupt_document", f"{path.name} is a damaged gzip file: {error}") from error
    if not head:
        raise BadDocumentError("empty_file", f"{path.name} has no content")
    if _is_binary(head) or b"%PDF-" in head[:1024]:
        raise BadDocumentError("unsupported_archive", f"{path.name} contains no text; unpack it with gunzip")
    return DetectedType(_from_text(head, _BY_EXTENSION.get(Path(path.stem).suffix.lower())), size, (), is_packed=True)


def check_archive(archive: zipfile.ZipFile, name: str) -> None:
    """Refuse an archive whose directory announces a zip bomb or a password, before unpacking anything."""
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if len(entries) > MAX_ARCHIVE_ENTRIES or unpacked > MAX_UNPACKED_BYTES:
        raise BadDocumentError("archive_too_large", f"{name} unpacks to {unpacked:,} bytes in {len(entries):,} entries")
    if unpacked > SMALL_BYTES and unpacked > MAX_COMPRESSION * max(packed, 1):
        raise BadDocumentError("archive_too_large", f"{name} unpacks to {unpacked // max(packed, 1):,} times its size")
    if any(entry.flag_bits & 0x1 for entry in entries):
        raise BadDocumentError("encrypted", f"{name} is protected by a password")


def failed_read(name: str, error: OSError) -> BadDocumentError:
    """Return the error for a failed read: a disk error, or a damaged archive that refers to a position before its
    start.
    """
    if error.errno in (None, errno.EINVAL):
        return BadDocumentError("corrupt_document", f"{name} is damaged: {error}")
    return BadDocumentError("unreadable", f"{name}: {error.strerror or error}")


def _cannot_open(path: Path, error: OSError) -> BadDocumentError:
    if isinstance(error, FileNotFoundError) or error.errno == errno.ENOTDIR:
        if path.is_symlink():
            return BadDocumentError("not_a_regular_file", f"{path.name} is a link to something that does not exist")
        return BadDocumentError("not_found", f"{path} does not exist")
    if isinstance(error, IsADirectoryError):
        return BadDocumentError("not_a_regular_file", f"{path.name} is a folder")
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        mode = stat.S_IFREG
    if not stat.S_ISREG(mode) and not isinstance(error, PermissionError):
        return BadDocumentError("not_a_regular_file", f"{path.name} is no regular file")
    return BadDocumentError("unreadable", f"{path.name}: {error.strerror or error}")


def _is_regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _from_head(head: bytes, file: BinaryIO, path: Path, expected: Format | None) -> Format:
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _from_archive(file, path, expected)
    if head.startswith(_OLE):
        if "EncryptedPackage".encode("utf-16-le") in head:
            raise BadDocumentError("encrypted", f"{path.name} is an Office document with a password")
        raise BadDocumentError("binary_content", f"{path.name} is an old Office file; save it as DOCX")
    if _is_binary(head):
        if expected == "pdf":
            raise BadDocumentError("corrupt_pdf", f"{path.name} does not begin as a PDF")
        if expected in _ARCHIVES:
            raise BadDocumentError("corrupt_document", f"{path.name} does not begin as {expected.upper()}")
        raise BadDocumentError("binary_content", f"{path.name} is neither text nor a known document format")
    return _from_text(head, expected)


def _is_binary(head: bytes) -> bool:
    """Return whether bytes are not text: NUL bytes without a byte order mark, or many control characters."""
    if head.startswith(_BOMS):
        return False
    return b"\x00" in head or len(head) - len(head.translate(None, _CONTROL)) > len(head) // 20


def _from_text(head: bytes, expected: Format | None) -> Format:
    plain = head.replace(b"\x00", b"") if head.startswith(_BOMS[1:]) else head
    for bom in _BOMS:
        plain = plain.removeprefix(bom)
    if _HTML_START.match(_after_comments(plain)):
        return "html"
    if expected == "html":
        return "html" if _TAG.search(plain) else "text"
    return expected if expected in _BY_TEXT_EXTENSION else "text"


def _after_comments(markup: bytes) -> bytes:
    """Return markup without leading comments and processing instructions."""
    while True:
        markup = markup.lstrip()
        for opening, closing in ((b"<!--", b"-->"), (b"<?", b">")):
            if markup.startswith(opening):
                markup = markup.partition(closing)[2]
                break
        else:
            return markup


def _from_archive(file: BinaryIO, path: Path, expected: Format | None) -> Format:
    try:
        with zipfile.ZipFile(file) as archive:
            check_archive(archive, path.name)
            names = set(archive.namelist())
            if "mimetype" in names:
                with archive.open("mimetype") as entry:
                    kind = entry.read(200).strip()
                if kind == _EPUB:
                    return "epub"
                if kind in (_ODT, _ODT + b"-template"):
                    return "odt"
            for part, format in _OFFICE_PARTS.items():
                if part in names:
                    return format
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, zlib.error) as error:
        if isinstance(error, BadDocumentError):
            raise
        if expected in _ARCHIVES:
            raise BadDocumentError(
                "corrupt_document", f"{path.name} is a damaged {expected.upper()}: {error}"
            ) from error
        raise BadDocumentError("unsupported_archive", f"{path.name} is a damaged archive: {error}") from error
    raise BadDocumentError("unsupported_archive", f"{path.name} is a zip file, but no document; unpack it")
