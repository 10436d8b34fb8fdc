"""The structure of a loaded text: headings, code, tables, pages and characters."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from milepost.documents.chunking import chunk_segments, chunk_text, split_segments
from tests.documents.sample_files import write_docx, write_epub, write_odt, write_pdf
from tests.documents.test_loaders import read

LETTERS = str.maketrans("0123456789", "ghijklmnop")
PROMPTS = "# mdadm --detail /dev/md1\nState : clean\n# exportfs -rv\n"


def headings_of(text: str, format: str, tokens: int = 16) -> set[str]:
    return {chunk.heading for chunk in chunk_text(text, format=format, tokens=tokens)}


@pytest.mark.parametrize(
    "markup",
    [
        f"<h1>Disks</h1><ul><li>Run <pre>{PROMPTS}</pre> and wait.</li></ul>",
        f"<h1>Disks</h1><p>Run</p><pre><b># raid</b>\n{PROMPTS}</pre>",
        "<h1>Disks</h1><p># mdadm --detail /dev/md1</p><div><code># exportfs -rv</code></div>",
    ],
)
def test_shell_prompt_in_html_is_no_heading(tmp_path: Path, markup: str) -> None:
    """One chunk of six of a manual stood under a heading that the page does not have."""
    path = tmp_path / "a.html"
    path.write_text(f"<html>{markup}<p>{'The end is near. ' * 20}</p>")
    text, _, report = read(path)
    assert "# mdadm" in text
    assert headings_of(text, report.format) == {"Disks"}


def test_shell_prompt_in_books_and_office_files_is_no_heading(tmp_path: Path) -> None:
    texts = ["Install it:", "# apt install x", "Then continue. " * 20]
    for path in (
        write_docx(tmp_path / "a.docx", texts, heading="Disks"),
        write_odt(tmp_path / "a.odt", texts),
        write_epub(tmp_path / "a.epub", [f"<pre>{PROMPTS}</pre>{texts[2]}"]),
    ):
        text, _, report = read(path)
        assert headings_of(text, report.format) < {"Disks", "Lighthouses", "Chapter 0"}, path.name


def test_comment_in_fenced_code_of_markdown_is_no_heading(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("# Disks\n\n````sh\n# one\n```\n# two\n````\n\n" + "More text. " * 30 + "\n\n~~~\n# three\n~~~\n")
    text, _, report = read(path)
    assert headings_of(text, report.format) == {"Disks"}


def test_code_across_segments_is_no_heading() -> None:
    text = "# Disks\n\n" + "    # mdadm --detail /dev/md1\n" * 200
    for characters in (100, 333, 1000):
        segments = split_segments([(text, None)], characters)
        chunks = list(chunk_segments(segments, document_id="d", format="html", tokens=32))
        assert {chunk.heading for chunk in chunks} == {"Disks"}
        assert all(text[chunk.start : chunk.stop] == chunk.text for chunk in chunks)


def test_space_between_two_blocks_of_markup_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text("<html><p>" + "<b>word </b>" * 100_000)
    assert read(path)[0].split() == ["word"] * 100_000


ROWS = "".join(f"<tr><td>Person {n}</td><td>Town {n % 7}</td></tr>" for n in range(150))


@pytest.mark.parametrize(
    "markup",
    [
        f"<table><thead><tr><th>Name</th><th>Home <b>town</b></th></tr></thead>{ROWS}</table>",
        f"<table><tr><th>Name<th>Home town</tr>{ROWS}</table><table><tr><td>alone<td>2</table>",
    ],
)
def test_rows_of_an_html_table_name_their_columns(tmp_path: Path, markup: str) -> None:
    """Only the first chunk of a table had its header."""
    path = tmp_path / "a.html"
    path.write_text(f"<html><p>Before.{markup}")
    text, _, report = read(path)
    chunks = chunk_text(text, format=report.format, tokens=64)
    assert len(chunks) > 10
    assert all("Name: Person" in chunk.text and "Home town: Town" in chunk.text for chunk in chunks)
    assert "alone: " not in text
    assert "Name: alone" not in text


@pytest.mark.parametrize(
    "markup",
    [
        "<table><tr><th>a<th>b</tr><tr><td rowspan=2>1<td>2</tr><tr><td>3</tr></table>",
        "<table><tr><th colspan=2>a<th>b</tr><tr><td>1<td>2<td>3</tr></table>",
        "<table><tr><th>Only one</tr><tr><td>1</tr></table>",
        "<table><tr><th>Born<td>1815</tr><tr><th>Died<td>1852</tr></table>",
    ],
)
def test_columns_without_a_certain_name_have_none(tmp_path: Path, markup: str) -> None:
    path = tmp_path / "a.html"
    path.write_text(f"<html>{markup}")
    assert ":" not in read(path)[0]


def test_rows_of_office_tables_name_their_columns(tmp_path: Path) -> None:
    import docx

    document = docx.Document()
    table = document.add_table(rows=1, cols=2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "Name", "Town"
    for number in range(3):
        cells = table.add_row().cells
        cells[0].text, cells[1].text = f"Person {number}", "Rome"
    document.save(str(tmp_path / "a.docx"))
    assert "Name | Town\nName: Person 0 | Town: Rome\n" in read(tmp_path / "a.docx")[0]

    cell = "<table:table-cell><text:p>{}</text:p></table:table-cell>"
    rows = "".join(
        f"<table:table-row>{cell.format(f'Person {n}')}{cell.format('Rome')}</table:table-row>" for n in range(3)
    )
    header = f"<table:table-row>{cell.format('Name')}{cell.format('Town')}</table:table-row>"
    extra = f"<table:table><table:table-header-rows>{header}</table:table-header-rows>{rows}</table:table>"
    assert "Name | Town\nName: Person 0 | Town: Rome\n" in read(write_odt(tmp_path / "a.odt", extra=extra))[0]


def test_outline_of_a_pdf_becomes_headings(tmp_path: Path) -> None:
    pages = [
        f"A manual. {'Its cover says little. ' * 3}",
        "Chapter 1. The first\nchapter\nIts text begins here. It tells more and more about towers.\n# apt install x",
        f"{'More text of it. ' * 5}\n2 Lamps\n{'Oil is what they burn. ' * 3}Lamps burn.",
    ]
    outline = [("The first chapter", 1), ("Lamps", 2), ("Elsewhere", 2)]
    text, _, report = read(write_pdf(tmp_path / "a.pdf", pages, outline=outline))
    found = {chunk.text[-11:]: chunk.heading for chunk in chunk_text(text, format=report.format, tokens=16)}
    assert found["Lamps burn."] == "Lamps"
    assert headings_of(text, report.format) - {""} == {"The first chapter", "Lamps", "Elsewhere"}
    assert "# The first chapter\n\nIts text begins here." in text
    assert "Chapter 1. The first" not in text, "the heading is there once"


def test_running_heads_and_page_numbers_are_dropped(tmp_path: Path) -> None:
    words = [hashlib.sha256(bytes([n])).hexdigest().translate(LETTERS) for n in range(40)]
    pages = [
        f"{n} CHAPTER {n // 10}. SIMPLE PACKAGING\nThe {word} begins\nand continues.\nThe {word} ends.\nTITLE {n} / 40"
        for n, word in enumerate(words)
    ]
    text, pieces, _ = read(write_pdf(tmp_path / "a.pdf", pages))
    assert (text.count("SIMPLE PACKAGING"), text.count("TITLE")) == (1, 1), "the first is kept"
    assert [piece.page for piece in pieces if piece.text] == list(range(1, 41))
    assert all(f"The {word} begins\nand continues.\nThe {word} ends." in text for word in words)


def test_pages_of_one_line_are_kept(tmp_path: Path) -> None:
    text, _, _ = read(write_pdf(tmp_path / "a.pdf", [f"page {n}" for n in range(20)]))
    assert text.split("\n\n")[:-1] == [f"page {n}" for n in range(20)]


def test_dot_leaders_of_a_table_of_contents_are_shortened(tmp_path: Path) -> None:
    text, _, _ = read(write_pdf(tmp_path / "a.pdf", ["Introduction" + " ." * 40 + " 7\nEnd..."]))
    assert text == "Introduction ... 7\nEnd...\n\n"


@pytest.mark.parametrize("damage", [b"\xff", b"\xc3", b"\xed\xa0\xbd"])
def test_broken_byte_does_not_change_the_encoding(tmp_path: Path, damage: bytes) -> None:
    """Three broken bytes turned a file of 4 kB into mojibake."""
    path = tmp_path / "a.txt"
    content = "Zażółć gęślą jaźń. ".encode()
    path.write_bytes(content * 100 + damage + content * 100)
    text, _, report = read(path)
    assert text.count("Zażółć gęślą jaźń.") == 200
    assert report.warnings == ("undecodable_bytes",)


@pytest.mark.parametrize(
    ("encoding", "sentence"),
    [
        ("cp1252", "Die Straße über den Fluß führt nach München. "),
        ("cp1252", "café "),
        ("cp1250", "Zażółć gęślą jaźń, powiedział stary człowiek. "),
        ("koi8_r", "Она сказала, что завтра будет хорошая погода. "),
        ("cp1251", "Она сказала, что завтра будет хорошая погода. "),
        ("gb18030", "今天天气很好，我们去公园散步。他说明天会下雨。"),
        ("shift_jis", "今日はとても良い天気ですね。明日は雨が降るそうです。"),
    ],
)
def test_encoding_is_guessed_from_the_content(tmp_path: Path, encoding: str, sentence: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes((sentence * 3).encode(encoding))
    text, _, report = read(path)
    assert text == sentence * 3
    assert report.warnings == ("encoding_guessed",)


def test_text_after_an_entity_in_a_docx_is_kept(tmp_path: Path) -> None:
    source = write_docx(tmp_path / "a.docx", ["one PLACE two"])
    target = tmp_path / "b.docx"
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if name == "word/document.xml":
                head, _, body = content.partition(b"?>")
                doctype = b'<!DOCTYPE w [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
                content = head + b"?>" + doctype + body.replace(b"PLACE", b"&x; and &x;")
            after.writestr(name, content)
    assert "one &x; and &x; two" in read(target)[0]
