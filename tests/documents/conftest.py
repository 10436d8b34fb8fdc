"""Fixtures of the document tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost.documents.loader_process import LoaderProcess, LoadLimits
from tests.documents.sample_files import PARAGRAPHS, write_docx, write_epub, write_odt, write_pdf


@pytest.fixture(scope="session")
def loader() -> Iterator[LoaderProcess]:
    """Return one loader child for the whole session, as a job would use it."""
    with LoaderProcess(LoadLimits(seconds=30)) as process:
        yield process


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder for documents."""
    path = tmp_path / "documents"
    path.mkdir()
    return path


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Return the path of a new document store."""
    return str(tmp_path / "documents.db")


@pytest.fixture
def library(folder: Path) -> Path:
    """Return a folder with a document of every format."""
    write_pdf(folder / "a.pdf", [*PARAGRAPHS, "A last page about paraffin."])
    write_docx(folder / "b.docx")
    write_epub(folder / "c.epub")
    write_odt(folder / "d.odt")
    (folder / "e.txt").write_text("\n\n".join(f"Paragraph {n}. {PARAGRAPHS[n % 3]}" for n in range(60)))
    (folder / "f.md").write_text("# Towers\n\n" + PARAGRAPHS[0])
    (folder / "g.csv").write_text("name,height\nBengtskar,52\n")
    (folder / "h.html").write_text(f"<html><h1>Towers</h1><p>{PARAGRAPHS[1]}")
    return folder
