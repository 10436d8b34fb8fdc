"""Valid documents of every format: their text, in order and in pieces, with titles and warnings."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from milepost.documents.errors import BadDocumentError
from milepost.documents.loaders import LoadReport, Piece, load
from tests.documents.sample_files import PARAGRAPHS, write_docx, write_epub, write_odt, write_pdf


def read(path: Path, **options: str) -> tuple[str, list[Piece], LoadReport]:
    pieces: list[Piece] = []
    loading = load(path, **options)  # type: ignore[arg-type]
    while True:
        try:
            pieces.append(next(loading))
        except StopIteration as stop:
            return "".join(piece.text for piece in pieces), pieces, stop.value


def test_pdf_comes_page_by_page(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["first line\nsecond line", "page two", "page three"])
    text, pieces, report = read(path)
    assert text == "first line\nsecond line\n\npage two\n\npage three\n\n"
    assert [(piece.done, piece.total, piece.page) for piece in pieces] == [
        *((page, 3, None) for page in (1, 2, 3)),  # read, and waiting for the pages after it
        *((3, 3, page) for page in (1, 2, 3)),
    ]
    assert (report.format, report.pages, report.failed_pages, report.warnings) == ("pdf", 3, 0, ())
    assert report.size == path.stat().st_size


def test_a_pdf_with_an_owner_password_only_is_open(tmp_path: Path) -> None:
    text, _, _ = read(write_pdf(tmp_path / "a.pdf", ["anybody may read"], owner_password="secret"))
    assert text == "anybody may read\n\n"


def test_a_pdf_with_few_broken_pages_is_read_without_them(tmp_path: Path) -> None:
    text, _, report = read(write_pdf(tmp_path / "a.pdf", ["one", "two", "three"], broken=[1]))
    assert text == "one\n\nthree\n\n"
    assert (report.pages, report.failed_pages, report.warnings) == (3, 1, ("failed_pages",))


def test_docx_keeps_headings_and_tables_in_order(tmp_path: Path) -> None:
    text, _, report = read(write_docx(tmp_path / "a.docx"))
    assert text.startswith(f"# Lighthouses\n\n{PARAGRAPHS[0]}\n\n")
    assert text.endswith("Name | Height\nBengtskar | 52 m\n\nAfter the table.\n\n")
    assert report.title == "Lighthouses"


def test_a_long_docx_comes_in_pieces(tmp_path: Path) -> None:
    _, pieces, _ = read(write_docx(tmp_path / "a.docx", [f"Paragraph {number}." for number in range(200)]))
    assert len(pieces) > 3
    assert [piece.done for piece in pieces] == sorted(piece.done for piece in pieces)
    assert all(piece.done <= piece.total for piece in pieces)


def test_epub_follows_the_spine(tmp_path: Path) -> None:
    text, pieces, report = read(write_epub(tmp_path / "a.epub"))
    assert [text.index(paragraph) for paragraph in PARAGRAPHS] == sorted(text.index(p) for p in PARAGRAPHS)
    assert text.startswith("## Chapter 0\n\n")
    assert [(piece.done, piece.total) for piece in pieces] == [(1, 3), (2, 3), (3, 3)]
    assert report.title == "Lights & towers"


def test_odt_reads_headings_lists_tables_and_inline_marks(tmp_path: Path) -> None:
    text, _, report = read(write_odt(tmp_path / "a.odt"))
    assert text.startswith(f"## Lighthouses\n\n{PARAGRAPHS[0]}\n\n")
    assert "two   spans\nand a line\n\n- first item\n\nName | Height\n" in text
    assert "deleted words" not in text
    assert report.title == "Towers"


def test_html_keeps_structure_and_drops_non_text(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text(
        "<!-- x --><!doctype html><head><title>The  title</title><style>p{}</style></head><body>"
        "<script>var a = '<p>no</p>';</script><h1>Head &amp; heart</h1><p>One <b>bold</b>\n word.<ul><li>x<li>y</ul>"
        "<pre>a\n   b</pre><table><tr><th>k</th><th>v</th></tr><tr><td>1</td><td>2</td></tr></table>end"
    )
    text, _, report = read(path)
    assert (
        text.strip() == "# Head & heart\n\nOne bold word.\n\n- x\n- y\n\n    a\n       b\n\nk | v\n\nk: 1 | v: 2\n\nend"
    )
    assert report.title == "The title"


@pytest.mark.parametrize(
    "markup",
    [
        "<div>" * 100_000 + "deep" + "</div>" * 100_000,
        "<!--" + "x" * 3_000_000,
        "<pre>" + " " * 2_000_000 + "</pre>text",
        "<!-- -->" * 50_000 + "<p>text",
        "<p " + "a='b' " * 200_000 + ">text",
        "<a <a " * 100_000,
    ],
    ids=["nested", "open comment", "spaces", "comments", "attributes", "open tags"],
)
def test_hostile_markup_takes_linear_time(tmp_path: Path, markup: str) -> None:
    path = tmp_path / "a.html"
    path.write_text(f"<html><body>first {markup}")
    before = time.process_time()
    read(path)
    assert time.process_time() - before < 10


def test_csv_rows_include_column_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('name;age;note\nAda;36;"two\nlines"\nBob;7;;extra\n\n')
    text, _, _ = read(path)
    assert text == "name: Ada\nage: 36\nnote: two\nlines\n\nname: Bob\nage: 7\ncolumn 4: extra\n\n"


@pytest.mark.parametrize(("delimiter", "suffix"), [(",", ".csv"), (";", ".csv"), ("|", ".csv"), ("\t", ".tsv")])
def test_csv_delimiter_is_detected(tmp_path: Path, delimiter: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text(f"a{delimiter}b\n1, one{delimiter}2\n".replace("1, one", "1" if delimiter == "," else "1, one"))
    assert read(path)[0].endswith(f"a: {'1' if delimiter == ',' else '1, one'}\nb: 2\n\n")


def test_csv_with_one_row_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("only,a,header\n")
    assert read(path)[0] == "only, a, header"


@pytest.mark.parametrize(
    ("content", "warnings"),
    [
        ("caf\u00e9".encode(), ()),
        ("caf\u00e9".encode("utf-8-sig"), ()),
        ("\ufeffcaf\u00e9".encode("utf-16-le"), ()),
        ("\ufeffcaf\u00e9".encode("utf-16-be"), ()),
        ("\ufeffcaf\u00e9".encode("utf-32-le"), ()),
        ("caf\u00e9".encode("cp1252"), ("encoding_guessed",)),
    ],
)
def test_encodings(tmp_path: Path, content: bytes, warnings: tuple[str, ...]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    text, _, report = read(path)
    assert text == "caf\u00e9"
    assert report.warnings == warnings


def test_given_encoding_is_used_if_text_declares_none(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\u0436\u0443\u043a".encode("koi8-r"))
    assert read(path, encoding="koi8-r")[0] == "\u0436\u0443\u043a"


def test_html_encoding_declaration_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_bytes('<html><meta charset="koi8-r"><p>\u0436\u0443\u043a'.encode("koi8-r"))
    text, _, report = read(path)
    assert text.strip() == "\u0436\u0443\u043a"
    assert report.warnings == ()


def test_line_ends_and_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\ntwo\rthree\x07\x1b[0m and a good deal more text")
    assert read(path)[0] == "one\ntwo\nthree[0m and a good deal more text"


def test_a_large_text_comes_in_blocks_of_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("A line of text, of which there are many.\n" * 50_000)
    text, pieces, report = read(path)
    assert report.format == "markdown"
    assert len(pieces) > 5
    assert text == path.read_text()
    assert pieces[-1].done == pieces[-1].total == path.stat().st_size


@pytest.mark.parametrize(
    ("name", "content", "format", "warnings"),
    [
        ("a.pdf", b"just text", "text", ("extension_mismatch",)),
        ("a.txt", b"<!DOCTYPE html><p>page", "html", ("extension_mismatch",)),
        ("a.html", b"no markup at all", "text", ("extension_mismatch",)),
        ("a.xyz", b"just text", "text", ()),
        ("README", b"just text", "text", ()),
        ("a.log", b"just text", "text", ()),
        ("a.md", b"# head", "markdown", ()),
    ],
)
def test_content_decides_the_format(
    tmp_path: Path, name: str, content: bytes, format: str, warnings: tuple[str, ...]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    _, _, report = read(path)
    assert (report.format, report.warnings) == (format, warnings)


def test_pdf_named_docx_is_read_as_pdf(tmp_path: Path) -> None:
    text, _, report = read(write_pdf(tmp_path / "a.docx", ["really a PDF"]))
    assert text == "really a PDF\n\n"
    assert report.warnings == ("extension_mismatch",)


def test_unknown_error_code_raises_key_error() -> None:
    with pytest.raises(KeyError):
        BadDocumentError("bad_luck", "no such code")
