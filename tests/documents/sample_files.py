"""Write small real files of every format, valid and damaged."""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

PARAGRAPHS = [
    "The lighthouse of Bengtskar was built in 1906 on a bare rock in the Finnish archipelago.",
    "Its keepers burned paraffin until 1968, when the lamp was electrified from the mainland.",
    "Ada Lovelace never saw it, but the museum shows a copy of her notes on the Analytical Engine.",
]


def write_pdf(
    path: Path,
    pages: Sequence[str],
    *,
    user_password: str = "",
    owner_password: str = "",
    broken: Sequence[int] = (),
    outline: Sequence[tuple[str, int]] = (),
) -> Path:
    """Write a PDF with a line of Helvetica for each line of each page, and an outline of (title, page from 0).

    Pages in `broken` are damaged.
    """
    objects: list[bytes] = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    kids = []
    identifier = hashlib.md5(b"milepost").digest()
    key, encryption = _pdf_encryption(user_password, owner_password, identifier)
    for number, text in enumerate(pages):
        lines = (
            "".join(f"({line.replace('(', '[').replace(')', ']')}) Tj T*\n" for line in text.split("\n"))
            if text
            else ""
        )
        content = f"BT /F1 11 Tf 14 TL 50 780 Td\n{lines}ET".encode("latin-1")
        content_id = len(objects) + 1
        if key:
            content = _rc4(hashlib.md5(key + struct.pack("<I", content_id)[:3] + b"\0\0").digest()[:10], content)
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R /Resources << /Font << /F1 3 0 R >> >> >>"
        objects.append(b"42" if number in broken else page % content_id)
        kids.append(content_id + 1)
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(b"%d 0 R" % kid for kid in kids))
    if outline:
        parent = len(objects) + 1
        last = parent + len(outline)
        objects[0] = b"<< /Type /Catalog /Pages 2 0 R /Outlines %d 0 R >>" % parent
        objects.append(b"<< /Count %d /First %d 0 R /Last %d 0 R >>" % (len(outline), parent + 1, last))
        for number, (title, page_number) in enumerate(outline, parent + 1):
            following = b" /Next %d 0 R" % (number + 1) if number < last else b""
            target = b"/Parent %d 0 R /Dest [%d 0 R /Fit]" % (parent, kids[page_number])
            objects.append(b"<< /Title (%s) %s%s >>" % (title.encode("latin-1"), target, following))
    if encryption:
        objects.append(encryption)
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    encrypt = b" /Encrypt %d 0 R" % len(objects) if encryption else b""
    hexed = identifier.hex().encode()
    out += b"trailer\n<< /Size %d /Root 1 0 R /ID [<%s> <%s>]%s >>\n" % (len(objects) + 1, hexed, hexed, encrypt)
    out += b"startxref\n%d\n%%%%EOF\n" % start
    path.write_bytes(out)
    return path


def write_docx(path: Path, paragraphs: Sequence[str] = PARAGRAPHS, heading: str = "Lighthouses") -> Path:
    """Write a DOCX with a heading, paragraphs, a table of two rows and a last paragraph."""
    import docx

    document = docx.Document()
    document.core_properties.title = heading
    document.add_heading(heading, level=1)
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    table = document.add_table(rows=2, cols=2)
    for row, cells in enumerate((("Name", "Height"), ("Bengtskar", "52 m"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    document.add_paragraph("After the table.")
    document.save(str(path))
    return path


def write_epub(path: Path, chapters: Sequence[str] = PARAGRAPHS, title: str = "Lights & towers") -> Path:
    """Write an EPUB with a chapter for each text, and the spine in reverse order of the manifest."""
    manifest = "".join(
        f'<item id="c{number}" href="text/c%20{number}.xhtml" media-type="application/xhtml+xml"/>'
        for number in reversed(range(len(chapters)))
    )
    spine = "".join(f'<itemref idref="c{number}"/>' for number in range(len(chapters)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr(
            "META-INF/container.xml",
            '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
            '<rootfiles><rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles>'
            "</container>",
        )
        archive.writestr(
            "OEBPS/content.opf",
            '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata '
            f'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title.replace("&", "&amp;")}</dc:title></metadata>'
            f"<manifest>{manifest}</manifest><spine>{spine}</spine></package>",
        )
        for number, text in enumerate(chapters):
            page = f'<html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title></head><body><h2>Chapter {number}</h2><p>{text}</p></body></html>'
            archive.writestr(f"OEBPS/text/c {number}.xhtml", page, zipfile.ZIP_DEFLATED)
    return path


def write_odt(path: Path, paragraphs: Sequence[str] = PARAGRAPHS, extra: str = "") -> Path:
    """Write an ODT with a heading, paragraphs, a list and a table; `extra` is inserted before the end."""
    body = "".join(f"<text:p>{paragraph}</text:p>" for paragraph in paragraphs)
    content = (
        '<?xml version="1.0" encoding="UTF-8"?><office:document-content '
        'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
        'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" '
        'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" office:version="1.2"><office:body><office:text>'
        "<text:tracked-changes><text:changed-region><text:p>deleted words</text:p></text:changed-region></text:tracked-changes>"
        f'<text:h text:outline-level="2">Lighthouses</text:h>{body}'
        '<text:p>two<text:s text:c="3"/><text:span>spans</text:span><text:line-break/>and a line</text:p>'
        "<text:list><text:list-item><text:p>first item</text:p></text:list-item></text:list>"
        "<table:table><table:table-row><table:table-cell><text:p>Name</text:p></table:table-cell>"
        "<table:table-cell><text:p>Height</text:p></table:table-cell></table:table-row></table:table>"
        f"{extra}</office:text></office:body></office:document-content>"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.text")
        archive.writestr("content.xml", content, zipfile.ZIP_DEFLATED)
        archive.writestr(
            "meta.xml",
            '<office:document-meta xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
            'xmlns:dc="http://purl.org/dc/elements/1.1/"><office:meta><dc:title>Towers</dc:title></office:meta>'
            "</office:document-meta>",
        )
    return path


def write_zip(path: Path, entries: dict[str, bytes]) -> Path:
    """Write a zip file. It is a document only if its entries make it one."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def write_zip_bomb(path: Path, megabytes: int = 512) -> Path:
    """Write a DOCX whose main part unpacks to some hundred megabytes of zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        with archive.open("word/document.xml", "w", force_zip64=True) as entry:
            for _ in range(megabytes):
                entry.write(bytes(1024 * 1024))
    return path


_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


def _pdf_encryption(user: str, owner: str, identifier: bytes) -> tuple[bytes, bytes]:
    """Return the key and the encryption dictionary of PDF's oldest handler (40-bit RC4), or nothing without passwords."""
    if not user and not owner:
        return b"", b""
    user_padded = (user.encode() + _PADDING)[:32]
    owner_padded = ((owner or user).encode() + _PADDING)[:32]
    owner_entry = _rc4(hashlib.md5(owner_padded).digest()[:5], user_padded)
    permissions = struct.pack("<i", -4)
    key = hashlib.md5(user_padded + owner_entry + permissions + identifier).digest()[:5]
    user_entry = _rc4(key, _PADDING)
    return key, b"<< /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -4 >>" % (
        owner_entry.hex().encode(),
        user_entry.hex().encode(),
    )


def _rc4(key: bytes, data: bytes) -> bytes:
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out = bytearray()
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)
