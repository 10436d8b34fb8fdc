"""EPUB with the standard library: chapters in reading order, parsed as HTML."""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from pathlib import Path
from typing import Final
from urllib.parse import unquote
from xml.etree import ElementTree

from milepost.documents.errors import BadDocumentError
from milepost.documents.file_types import check_archive
from milepost.documents.loaders.html import markup_to_text
from milepost.documents.loaders.piece import LoadReport, Piece, Pieces, printable

_CONTAINER: Final = "{urn:oasis:names:tc:opendocument:xmlns:container}"
_OPF: Final = "{http://www.idpf.org/2007/opf}"
_DC: Final = "{http://purl.org/dc/elements/1.1/}"
_ENCRYPTED: Final = "{http://www.w3.org/2001/04/xmlenc#}CipherReference"
_PAGES: Final = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
DAMAGED: Final = (
    zipfile.BadZipFile, zlib.error, ElementTree.ParseError, KeyError, EOFError, NotImplementedError,
    LookupError, ValueError, RecursionError,
)  # fmt: skip


def load_epub(path: Path, *, encoding: str | None = None) -> Pieces:
    """Yield an EPUB chapter by chapter. The unit is chapters. The file declares its own encoding."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path.name)
            title, chapters = _spine(archive)
            if _locked(archive) & set(chapters):
                raise BadDocumentError("encrypted", f"{path.name} is protected (DRM)")
            for number, name in enumerate(chapters, 1):
                text, _ = markup_to_text(_decode(archive.read(name)))
                yield Piece(f"{text.strip()}\n\n" if text.strip() else "", number, len(chapters))
    except BadDocumentError:
        raise
    except DAMAGED as error:
        raise BadDocumentError("corrupt_document", f"{path.name} is a damaged EPUB: {error}") from error
    return LoadReport("epub", title=title)


def _spine(archive: zipfile.ZipFile) -> tuple[str, list[str]]:
    """Return the title and the names of the chapters in the archive, in reading order, each once."""
    container = ElementTree.fromstring(archive.read("META-INF/container.xml"))
    rootfile = container.find(f".//{_CONTAINER}rootfile")
    if rootfile is None:
        raise KeyError("no rootfile")
    package_name = rootfile.attrib["full-path"]
    package = ElementTree.fromstring(archive.read(package_name))
    folder = posixpath.dirname(package_name)
    pages = {
        item.attrib["id"]: posixpath.normpath(posixpath.join(folder, unquote(item.attrib["href"])))
        for item in package.iter(f"{_OPF}item")
        if item.attrib.get("media-type") in _PAGES
    }
    names = set(archive.namelist())
    chapters = [pages.get(ref.attrib.get("idref", ""), "") for ref in package.iter(f"{_OPF}itemref")]
    title = package.findtext(f".//{_DC}title") or ""
    return printable(title).strip()[:300], list(dict.fromkeys(name for name in chapters if name in names))


def _locked(archive: zipfile.ZipFile) -> set[str]:
    """Return the names of encrypted entries. Encrypted fonts are harmless."""
    if "META-INF/encryption.xml" not in archive.namelist():
        return set()
    root = ElementTree.fromstring(archive.read("META-INF/encryption.xml"))
    return {unquote(reference.attrib.get("URI", "")) for reference in root.iter(_ENCRYPTED)}


def _decode(markup: bytes) -> str:
    for encoding in ("utf-16",) if markup[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252"):
        try:
            return markup.decode(encoding)
        except UnicodeDecodeError:
            continue
    return markup.decode("cp1252", errors="replace")
