"""HTML pages, and EPUB books, whose chapters are HTML."""

from __future__ import annotations

import posixpath
import re
import zipfile
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote
from xml.etree import ElementTree

from milepost.documents.errors import BadDocumentError
from milepost.documents.file_types import check_archive
from milepost.documents.loaders import CODE, LoadReport, Piece, Pieces, printable, without_headings
from milepost.documents.loaders.table_header import TableHeader
from milepost.documents.loaders.text import encoding_warnings, find_encoding, read_blocks

_DROPPED: Final = frozenset({"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "select"})
_HEADINGS: Final = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_BLOCKS: Final = """
    address article aside blockquote body center dd details div dl fieldset figcaption figure footer form
    header hr main nav ol p pre section summary table title ul
"""
_PARAGRAPHS: Final = frozenset(_BLOCKS.split())
_LINES: Final = frozenset({"br", "dt", "tr", "caption", "option", "legend"})
_SPACE: Final = re.compile(r"\s+")
_BLANK_LINES: Final = re.compile(r"\n{3,}")
_MAX_UNPARSED: Final = 256 * 1024
_MAX_UNCLOSED: Final = 16 * 1024


def load_html(path: Path, *, encoding: str | None = None) -> Pieces:
    """Yield a page in pieces as its blocks are parsed. The unit is bytes."""
    found = find_encoding(path, encoding=encoding)
    reader = MarkupReader()
    done = total = 0
    for text, done, total in read_blocks(path, found):
        reader.feed_block(text)
        if ready := reader.take():
            yield Piece(ready, done, total)
    reader.finish()
    yield Piece(reader.take(), total, total)
    return LoadReport("html", title=reader.title, warnings=encoding_warnings(found))


def markup_to_text(markup: str) -> tuple[str, str]:
    """Return the (text, title) of a page of markup."""
    reader = MarkupReader()
    reader.feed_block(markup)
    reader.finish()
    return reader.take(), reader.title


class MarkupReader(HTMLParser):
    """Collects the readable text of markup; `take()` returns what is finished."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self._out: list[str] = []
        self._unparsed: list[str] = []
        self._unparsed_size = 0
        self._patience = 0
        self._dropped = 0
        self._preformatted = 0
        self._in_title = False
        self._cells = 0
        self._tables: list[TableHeader] = []
        self._end = "\n"  # the last character

    def feed_block(self, text: str) -> None:
        """Parse one more block.

        The parser rescans an unclosed construct with each block, so blocks grow with what could not be parsed.
        """
        self._unparsed.append(text)
        self._unparsed_size += len(text)
        if self._unparsed_size >= self._patience:
            self.feed("".join(self._unparsed))
            self._unparsed, self._unparsed_size = [], 0
            self._patience = len(self.rawdata) if len(self.rawdata) > _MAX_UNPARSED else 0

    def finish(self) -> None:
        """Parse the rest.

        A long rest is an unclosed tag or comment. The parser would search for its end from each `<`, so a tag is
        returned as text and a comment is dropped.
        """
        self.feed("".join(self._unparsed))
        self._unparsed = []
        if len(self.rawdata) > _MAX_UNCLOSED:
            rest, self.rawdata = self.rawdata, ""
            if not rest.startswith(("<!", "<?")):
                self.handle_data(rest.replace("<", " "))
        self.close()

    def take(self) -> str:
        """Return the text collected so far."""
        text = "".join(self._out)
        finished = text.rstrip(" \t\n")
        self._out = [text[len(finished) :]]
        lines = finished.split("\n")
        return _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip(" \t") for line in lines))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _DROPPED:
            self._dropped += 1
        elif tag in _HEADINGS:
            self._write("\n\n" + _HEADINGS[tag])
        elif tag == "li":
            self._write("\n- ")
        elif tag in ("td", "th"):
            self._write(" | " if self._cells else "")
            self._cells += 1
            if self._tables:
                self._write(self._tables[-1].begin_cell(is_name=tag == "th", spans=_spans(attrs)))
        elif tag in _PARAGRAPHS:
            self._write("\n\n")
        elif tag in _LINES:
            self._write("\n")
            self._cells = 0
        if tag == "pre":
            self._preformatted += 1
            self._write(CODE if self._preformatted == 1 else "")
        elif tag == "table":
            self._tables.append(TableHeader())
        elif tag == "tr" and self._tables:
            self._tables[-1].begin_row()
        elif tag == "title":
            self._in_title = True
        elif tag == "body":
            self._in_title, self._dropped = False, 0

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _DROPPED and tag not in ("pre", "title"):
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in _DROPPED:
            self._dropped = max(0, self._dropped - 1)
        elif tag in ("td", "th") and self._tables:
            self._tables[-1].end_cell()
        if tag == "pre":
            self._preformatted = max(0, self._preformatted - 1)
        if tag in _HEADINGS or tag in _PARAGRAPHS:
            self._write("\n\n")
        elif tag in ("tr", "dt", "caption"):
            self._write("\n")
            self._cells = 0
        if tag == "table" and self._tables:
            self._tables.pop()
        elif tag == "title":
            self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._dropped:
            return
        if self._in_title:
            self.title = _SPACE.sub(" ", printable(self.title + data)).strip()[:300]
        elif self._preformatted:
            self._write(data)
        else:
            text = _SPACE.sub(" ", data)
            text = text[1:] if self._end.isspace() and text.startswith(" ") else text
            self._write(without_headings(text) if self._end == "\n" else text)
        if self._tables:
            self._tables[-1].add(data)

    def _write(self, text: str) -> None:
        if text and not self._dropped:
            self._out.append(printable(text.replace("\n", "\n" + CODE) if self._preformatted else text))
            self._end = text[-1]


def _spans(attrs: list[tuple[str, str | None]]) -> bool:
    """Return whether a cell covers several rows or columns."""
    return any(name in ("rowspan", "colspan") and value not in (None, "", "1") for name, value in attrs)


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
                yield Piece(text.strip("\n") + "\n\n" if text.strip() else "", number, len(chapters))
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
