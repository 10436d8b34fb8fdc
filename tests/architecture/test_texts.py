"""The list of texts is up to date, and the questions of a newcomer name files that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


def test_list_of_texts_is_current(tmp_path: Path) -> None:
    """In another process: in Python 3.11 ast.parse fails when another thread formats a traceback meanwhile."""
    current = tmp_path / "texts.txt"
    subprocess.run([sys.executable, str(ROOT / "scripts" / "texts.py"), str(current)], check=True)
    assert (HERE / "texts.txt").read_text() == current.read_text(), "run python scripts/texts.py"


def test_answers_of_newcomer_questions_exist() -> None:
    answers = re.findall(r"`(src/[^`]+)`", (HERE / "questions.md").read_text())
    assert len(answers) == 30
    assert [path for path in answers if not (ROOT / path).is_file()] == []
