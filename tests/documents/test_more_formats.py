"""Packed text, workbooks, presentations, JSON, notebooks and e-mail, and the choice of files by globs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from milepost.documents.errors import BadDocumentError
from milepost.documents.file_selection import select_files
from milepost.documents.loaders import load
from milepost.documents.retrieval import search
from tests.documents.ingestion_fixture import run_job
from tests.documents.sample_files import write_pdf, write_zip
from tests.documents.test_loaders import read


@pytest.mark.parametrize(
    ("name", "content", "format", "text"),
    [
        ("a.md.gz", "# Towers\n\nA text.", "markdown", "# Towers\n\nA text."),
        ("a.txt.gz", "caf\u00e9", "text", "caf\u00e9"),
        ("a.html.gz", "<html><h1>Towers</h1>", "html", "\n\n# Towers"),
        ("a.csv.gz", "name,height\nBengtskar,52\n", "csv", "name: Bengtskar\nheight: 52\n\n"),
        ("changelog.gz", "Closes: #1", "text", "Closes: #1"),
    ],
)
def test_packed_text_is_read(tmp_path: Path, name: str, content: str, format: str, text: str) -> None:
    """Each `.md.gz` of a folder failed as binary content."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()))
    found, _, report = read(path)
    assert (found, report.format, report.size) == (text, format, path.stat().st_size)


def bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(b"0" * 64 * 1024 * 1024))


def cut(path: Path) -> None:
    path.write_bytes(gzip.compress(bytes(range(65, 91)) * 100_000)[:-200])


@pytest.mark.parametrize(
    ("name", "write", "code"),
    [
        ("a.txt.gz", bomb, "archive_too_large"),
        ("a.txt.gz", cut, "corrupt_document"),
        ("a.txt.gz", lambda path: path.write_bytes(b"no gzip"), "corrupt_document"),
        ("a.txt.gz", lambda path: path.write_bytes(gzip.compress(b"")), "empty_file"),
        ("a.tar.gz", lambda path: path.write_bytes(gzip.compress(bytes(1024))), "unsupported_archive"),
        ("a.pdf.gz", lambda path: path.write_bytes(gzip.compress(b"%PDF-1.4 ...")), "unsupported_archive"),
        ("a.xlsx", lambda path: path.write_bytes(b"\0\1" * 100), "corrupt_document"),
        ("a.xlsx", lambda path: write_zip(path, {"xl/workbook.xml": b"<a/>"}), "corrupt_document"),
        ("a.pptx", lambda path: write_zip(path, {"ppt/presentation.xml": b"<a/>"}), "corrupt_document"),
        ("a.ipynb", lambda path: path.write_text('{"cells": 7}'), "corrupt_document"),
        ("a.ipynb", lambda path: path.write_text('{"cells": []}'), "no_text"),
    ],
)
def test_damaged_file_has_a_code(tmp_path: Path, name: str, write: Callable[[Path], object], code: str) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(BadDocumentError) as bad:
        list(load(path))
    assert bad.value.code == code


def test_workbook_rows_name_their_columns(tmp_path: Path) -> None:
    import openpyxl

    workbook = openpyxl.Workbook()
    workbook.properties.title = "Lights"
    towers = workbook.active
    assert towers is not None
    towers.title = "Towers"
    for row in (
        ["Lighthouses of Finland"],
        [],
        ["Name", "Height"],
        ["Bengtskar", 52],
        [None, None],
        ["Marjaniemi", None],
    ):
        towers.append(row)
    other = workbook.create_sheet("Other")
    other["C5"] = "# alone"
    workbook.save(tmp_path / "a.xlsx")
    text, pieces, report = read(tmp_path / "a.xlsx")
    assert text == (
        "# Towers\n\nLighthouses of Finland\nName | Height\nName: Bengtskar | Height: 52\nName: Marjaniemi\n\n"
        "# Other\n\n    # alone\n\n"
    )
    assert (report.format, report.title, pieces[-1].done, pieces[-1].total) == ("xlsx", "Lights", 2, 2)


def test_presentation_is_read_slide_by_slide(tmp_path: Path) -> None:
    import pptx

    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = "Lighthouses"
    slide.placeholders[1].text = "Built in 1906\n# on a rock"
    slide.notes_slide.notes_text_frame.text = "Mention the keepers."
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    table = slide.shapes.add_table(2, 2, 0, 0, 99, 99).table
    for column, texts in enumerate((("Name", "Bengtskar"), ("Height", "52"))):
        for row, text in enumerate(texts):
            table.cell(row, column).text = text
    presentation.save(str(tmp_path / "a.pptx"))
    text, pieces, report = read(tmp_path / "a.pptx")
    assert text == (
        "# Lighthouses\n\nBuilt in 1906\n    # on a rock\n\nMention the keepers.\n\n"
        "Name | Height\nName: Bengtskar | Height: 52\n\n"
    )
    assert ([piece.page for piece in pieces], report.pages) == ([1, 2], 2)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            '[{"name": "Bengtskar", "built": {"year": 1906, "by": null}}, {"name": "Marjaniemi", "tags": ["red", 7]}]',
            "name: Bengtskar\nbuilt.year: 1906\n\nname: Marjaniemi\ntags: red, 7\n\n",
        ),
        ('{"a": 1}\n{"a": [{"b": "two"}, {"b": "three"}]}\n', "a: 1\n\na.b: two\na.b: three\n\n"),
        ('"only text"', "only text\n\n"),
        ('// settings\n{"a": 1}', '// settings\n{"a": 1}'),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_json_becomes_lines(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    assert read(path)[0] == text


def test_notebook_keeps_text_and_code_apart(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Towers\n", "A text."]},
        {
            "cell_type": "code",
            "source": ["# a comment\n", "1 + 1"],
            "outputs": [{"data": {"text/plain": ["2"]}}, {"text": "printed\n"}, {"data": {"image/png": "iVBOR"}}],
        },
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    text, _, report = read(path)
    assert text == "# Towers\nA text.\n\n    # a comment\n    1 + 1\n\n    2\n\n    printed\n\n"
    assert report.format == "ipynb"


@pytest.mark.parametrize("is_html", [False, True])
def test_email_is_read(tmp_path: Path, is_html: bool) -> None:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "L\u00fcfter", "Ada <ada@example.org>", "keepers@example.org"
    if is_html:
        message.set_content("<p>The lamp is <b>off</b>.", subtype="html")
    else:
        message.set_content("The lamp is off.\n")
    message.add_attachment(b"\0\1", maintype="application", subtype="octet-stream", filename="lamp.bin")
    path = tmp_path / "a.eml"
    path.write_bytes(bytes(message))
    text, _, report = read(path)
    assert text == (
        "# L\u00fcfter\n\nFrom: Ada <ada@example.org>\nTo: keepers@example.org\n\nThe lamp is off.\n\n"
        "Attachments: lamp.bin\n\n"
    )
    assert (report.format, report.title) == ("eml", "L\u00fcfter")


def test_documented_loader_reads_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called as by the loader process; a stand-in for Tesseract repeats the file."""
    page = (Path(__file__).parents[2] / "docs/how-to/plugins.md").read_text()
    program = page.partition('title="milepost_ocr.py"\n')[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(program, names)
    stand_in = tmp_path / "tesseract"
    stand_in.write_text('#!/bin/sh\n[ "$2" = stdout ] && grep -v broken "$1" || { echo "Cannot read" >&2; exit 1; }')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "a.png").write_text("EXIT")
    assert [piece.text for piece in names["load_picture"](tmp_path / "a.png")] == ["EXIT\n"]
    (tmp_path / "b.png").write_text("broken")
    with pytest.raises(BadDocumentError, match=r"b\.png: Cannot read"):
        list(names["load_picture"](tmp_path / "b.png"))


def test_globs_choose_the_files_of_a_folder(folder: Path, database: str) -> None:
    (folder / "old").mkdir()
    for name in ("a.md", "b.css", "c.md.gz", "old/d.md"):
        (folder / name).write_text("text about towers")
    write_pdf(folder / "e.pdf", ["a page"])

    def names(**globs: list[str]) -> list[str]:
        found = select_files([folder], **globs)
        assert len(found.sources) + found.skipped == 5
        return [source.path.name for source in found.sources]

    assert names(include=["*.md", "*.pdf"]) == ["a.md", "e.pdf", "d.md"]
    assert names(exclude=["*.css", "old/*", "*.gz"]) == ["a.md", "e.pdf"]
    assert names(include=["*.md"], exclude=["old/*"]) == ["a.md"]
    assert len(select_files([folder / "b.css"], exclude=["*.css"]).sources) == 1, "a file that is named is taken"
    result, _ = run_job(database, folder, include=["*.md"])
    assert (result["ingested"], result["skipped"]) == (2, 3)
    result, _ = run_job(database, folder, exclude=["old/*"], include=["*.md"], sync=True)
    assert (result["unchanged"], result["removed"]) == (1, 0), "a file that a glob leaves out is not gone"
    assert len(search("towers", database=database)) == 2
