"""A bad file for each error code, with the code that it must get."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from tests.documents.sample_files import (
    PARAGRAPHS,
    write_docx,
    write_epub,
    write_odt,
    write_pdf,
    write_zip,
    write_zip_bomb,
)


def _bytes(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


def _cut(write: Callable[[Path], Path], share: float) -> Callable[[Path], Path]:
    def cut(path: Path) -> Path:
        content = write(path).read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        return path

    return cut


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _socket(path: Path) -> Path:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)
    return path


def _dangling(path: Path) -> Path:
    path.symlink_to(path.parent / "nowhere")
    return path


def _locked_odt(path: Path) -> Path:
    manifest = '<m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"><m:file-entry><m:encryption-data/></m:file-entry></m:manifest>'
    return write_zip(
        path,
        {
            "mimetype": b"application/vnd.oasis.opendocument.text",
            "META-INF/manifest.xml": manifest.encode(),
            "content.xml": b"\x01\x02",
        },
    )


def _office(stream: str) -> bytes:
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + stream.encode("utf-16-le") + bytes(600)


def _pdf(path: Path) -> Path:
    return write_pdf(path, PARAGRAPHS)


def _many_entries(path: Path) -> Path:
    return write_zip(path, {f"word/{number}.xml": b"" for number in range(10_001)})


BAD: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "zero bytes": ("empty.txt", _bytes(b""), "empty_file"),
    "garbage PDF": ("garbage.pdf", _bytes(b"%PDF-1.7\n" + bytes(range(256)) * 20), "corrupt_pdf"),
    "binary named PDF": ("binary.pdf", _bytes(bytes(range(256)) * 20), "corrupt_pdf"),
    "truncated PDF": ("truncated.pdf", _cut(_pdf, 0.2), "corrupt_pdf"),
    "more than half the pages broken": (
        "broken.pdf", lambda path: write_pdf(path, ["a", "b", "c"], broken=[0, 2]), "corrupt_pdf",
    ),
    "PDF with a user password": (
        "locked.pdf", lambda path: write_pdf(path, PARAGRAPHS, user_password="secret"), "encrypted",
    ),
    "Office file with a password": ("locked.docx", _bytes(_office("EncryptedPackage")), "encrypted"),
    "ODT with a password": ("locked.odt", _locked_odt, "encrypted"),
    "scan": ("scan.pdf", lambda path: write_pdf(path, ["", ""]), "no_text"),
    "PDF without pages": ("pageless.pdf", lambda path: write_pdf(path, []), "no_text"),
    "only blanks": ("blank.txt", _bytes(b" \n\t \n"), "no_text"),
    "page without text": ("blank.html", _bytes(b"<html><script>x</script></html>"), "no_text"),
    "NUL bytes": ("nul.txt", _bytes(b"text\x00text"), "binary_content"),
    "NUL bytes far in": ("late.txt", _bytes(b"text " * 100_000 + b"\x00"), "binary_content"),
    "control characters": ("noise.txt", _bytes(bytes(range(1, 32)) * 40), "binary_content"),
    "picture": ("picture.png", _bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)), "binary_content"),
    "old Word file": ("old.doc", _bytes(_office("WordDocument")), "binary_content"),
    "zip bomb": ("bomb.docx", lambda path: write_zip_bomb(path, 300), "archive_too_large"),
    "zip of very many entries": ("many.epub", _many_entries, "archive_too_large"),
    "zip that compresses too well": ("dense.odt", lambda path: write_zip_bomb(path, 40), "archive_too_large"),
    "zip that is no document": ("photos.zip", lambda path: write_zip(path, {"a.jpg": b"x"}), "unsupported_archive"),
    "zip named DOCX": ("photos.docx", lambda path: write_zip(path, {"a.jpg": b"x"}), "unsupported_archive"),
    "truncated DOCX": ("cut.docx", _cut(write_docx, 0.7), "corrupt_document"),
    "truncated EPUB": ("cut.epub", _cut(write_epub, 0.7), "corrupt_document"),
    "truncated ODT": ("cut.odt", _cut(write_odt, 0.7), "corrupt_document"),
    "DOCX with broken XML": (
        "xml.docx",
        lambda path: write_zip(path, {"word/document.xml": b"<w:document", "[Content_Types].xml": b"<Types"}),
        "corrupt_document",
    ),
    "ODT with broken XML": (
        "xml.odt",
        lambda path: write_zip(
            path, {"mimetype": b"application/vnd.oasis.opendocument.text", "content.xml": b"<office:text><p>"}
        ),
        "corrupt_document",
    ),
    "EPUB without a package": (
        "xml.epub", lambda path: write_zip(path, {"mimetype": b"application/epub+zip"}), "corrupt_document",
    ),
    "larger than max_bytes": ("large.txt", _bytes(b"text\n" * 1_000_000), "too_large"),
    "dangling link": ("dangling.txt", _dangling, "not_a_regular_file"),
    "FIFO": ("fifo.txt", _fifo, "not_a_regular_file"),
    "socket": ("socket.txt", _socket, "not_a_regular_file"),
    "device": ("device.txt", lambda path: (path.symlink_to("/dev/null"), path)[1], "not_a_regular_file"),
    "folder": ("folder.txt", lambda path: (path.mkdir(), path)[1], "not_a_regular_file"),
    "vanished": ("vanished.txt", lambda path: path, "not_found"),
    "inside a file": ("a.txt/b.txt", lambda path: (path.parent.write_text("x"), path)[1], "not_found"),
}  # fmt: skip
"""Name of the row -> (file name, writer, code)."""

MAX_BYTES = 4 * 1024 * 1024
