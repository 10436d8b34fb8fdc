"""The list of texts is up to date, and the questions of a newcomer name files that exist."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


def test_list_of_texts_is_current() -> None:
    current = runpy.run_path(str(ROOT / "scripts" / "texts.py"))["snapshot"]()
    assert (HERE / "texts.txt").read_text() == current, "run python scripts/texts.py"


def test_answers_of_newcomer_questions_exist() -> None:
    answers = re.findall(r"`(src/[^`]+)`", (HERE / "questions.md").read_text())
    assert len(answers) == 30
    assert [path for path in answers if not (ROOT / path).is_file()] == []
