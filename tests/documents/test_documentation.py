"""The page about the document jobs: its commands and programs run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from milepost.documents.errors import CODES
from tests.documents.writing import PARAGRAPHS, write_docx

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "documents.md"


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("language", "block"),
    [(language, block) for language in ("sh", "python") for block in blocks(language)],
    ids=lambda value: str(value).split("\n")[-2][:40] if "\n" in str(value) else str(value),
)
def test_every_block_runs(language: str, block: str, tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "notes.txt").write_text("\n\n".join(PARAGRAPHS))
    write_docx(tmp_path / "papers" / "towers.docx")
    (tmp_path / "bin").mkdir()
    for name, code in (
        ("milepost", '-c "import sys; from milepost.cli import main; sys.exit(main())"'),
        ("python", ""),
    ):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {code} "$@"\n')
        program.chmod(0o755)
    command = ["sh", "-eu", "-c", block] if language == "sh" else [sys.executable, "-W", "error", "-c", block]
    places = {name: str(tmp_path) for name in ("XDG_STATE_HOME", "XDG_DATA_HOME")}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=250,
        env={**os.environ, **places, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
    if "search" in block:
        assert "Analytical Engine" in done.stdout


def test_every_code_of_a_bad_document_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [code for code in CODES if f"`{code}`" not in page] == []
