"""Small files that expand to much text or much work end at a limit, with an error code."""

from __future__ import annotations

import os
import signal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from milepost.documents.errors import BadDocumentError
from milepost.documents.loader_process import LoaderProcess, LoadLimits
from milepost.documents.loaders import load
from tests.documents.sample_files import write_docx, write_epub, write_pdf

MIB = 1024 * 1024


def text_of(path: Path) -> str:
    return "".join(piece.text for piece in load(path))


def test_long_column_name_is_repeated_only_in_part(tmp_path: Path) -> None:
    """850 kB of CSV, a long header over many short rows, became 10 GB of text."""
    path = tmp_path / "a.csv"
    path.write_text("n" * 100_000 + ",b\n" + "1,2\n" * 1000)
    assert len(text_of(path)) < 1000 * 220


def test_repeated_chapter_is_read_once(tmp_path: Path) -> None:
    """30 kB of EPUB, whose spine named one chapter 20,000 times, became 220 MB of text."""
    path = write_epub(tmp_path / "a.epub")
    once = text_of(path)
    again = tmp_path / "b.epub"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(again, "w") as target:
        for item in source.infolist():
            content = source.read(item)
            if item.filename.endswith(".opf"):
                start = content.index(b"<itemref")
                stop = content.index(b"</spine>")
                content = content[:start] + content[start:stop] * 1000 + content[stop:]
            target.writestr(item, content)
    assert text_of(again) == once


def test_cell_spanning_a_billion_columns_is_refused(tmp_path: Path) -> None:
    """858 bytes of DOCX used all the time allowed for a file."""
    path = write_docx(tmp_path / "a.docx")
    wide = tmp_path / "b.docx"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(wide, "w") as target:
        for item in source.infolist():
            content = source.read(item)
            if item.filename == "word/document.xml":
                span = b'<w:tc><w:tcPr><w:gridSpan w:val="1000000000"/></w:tcPr>'
                assert b"<w:tc>" in content
                content = content.replace(b"<w:tc>", span, 1)
            target.writestr(item, content)
    with pytest.raises(BadDocumentError, match="corrupt_document"):
        text_of(wide)


def test_repeated_page_fails_the_document(tmp_path: Path) -> None:
    """19 kB of PDF with one page 3,000 times used all the time allowed for a file."""
    pages = [f"{number} " + "a line of a page\n" * 20 for number in range(3)]
    path = write_pdf(tmp_path / "a.pdf", pages)
    content = path.read_bytes()
    kids = content[content.index(b"/Kids [") + 7 : content.index(b"]", content.index(b"/Kids ["))]
    first = b" ".join(kids.split()[:3])
    path.write_bytes(content.replace(b"/Count 3 /Kids [" + kids, b"/Count 3000 /Kids [" + b" ".join([first] * 3000)))
    with pytest.raises(BadDocumentError, match="text_too_large"):
        text_of(path)


def test_text_of_a_file_is_bounded_by_its_size(tmp_path: Path) -> None:
    """The text of a file was unlimited."""
    path = tmp_path / "a.csv"
    path.write_text("n" * 200 + "\n" + "1\n" * 200_000)
    with LoaderProcess(LoadLimits(seconds=60)) as loader:
        with pytest.raises(BadDocumentError, match="text_too_large"):
            list(loader.load(path))
        small = tmp_path / "b.txt"
        small.write_text("A small text.")
        assert "".join(piece.text for piece in loader.load(small)) == "A small text."


def test_text_limit_grows_with_file_size_up_to_the_maximum() -> None:
    limits = LoadLimits(max_characters=100 * MIB)
    assert [limits.characters_for(size) // MIB for size in (0, MIB, 2 * MIB, 50 * MIB)] == [16, 20, 40, 100]


@pytest.mark.timing
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_child_sees_no_keys_and_writes_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closing: Callable[[LoaderProcess], LoaderProcess]
) -> None:
    """The process that parses untrusted files had all keys and URLs of its parent, and could lift its own limits."""
    for name in ("MILEPOST_URL", "MILEPOST_LLM_KEY", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "PGPASSWORD"):
        monkeypatch.setenv(name, "hunter2")
    loader = closing(LoaderProcess(LoadLimits(seconds=30)))
    (tmp_path / "a.txt").write_text("text")
    assert [piece.text for piece in loader.load(tmp_path / "a.txt")] == ["text"]
    assert "hunter2" not in Path(f"/proc/{loader.pid}/environ").read_text()
    limits = Path(f"/proc/{loader.pid}/limits").read_text().splitlines()
    held = {line[:26].strip(): line[26:].split()[:2] for line in limits}
    assert held["Max file size"] == held["Max core file size"] == ["0", "0"]
    assert held["Max address space"] == [str(loader.limits.memory_bytes)] * 2
    assert 30 <= int(held["Max cpu time"][0]) <= 60


@pytest.fixture
def closing() -> object:
    """Close loaders at the end."""
    opened: list[LoaderProcess] = []

    def keep(loader: LoaderProcess) -> LoaderProcess:
        opened.append(loader)
        return loader

    yield keep
    for loader in opened:
        loader.close()


@pytest.mark.timing
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_cpu_time_limit_has_its_error_code(tmp_path: Path, closing: Callable[[LoaderProcess], LoaderProcess]) -> None:
    """A child whose parent was suspended ran for ever. Now the kernel ends it with this signal."""
    loader = closing(LoaderProcess(LoadLimits(seconds=60)))
    path = tmp_path / "a.csv"
    path.write_text("name\n" + "1\n" * 400_000)
    pieces = loader.load(path)
    next(pieces)
    assert loader.pid is not None
    os.kill(loader.pid, signal.SIGXCPU)
    with pytest.raises(BadDocumentError, match="load_timeout"):
        for _ in pieces:
            pass
