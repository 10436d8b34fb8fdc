"""`milepost documents measure`: hit@1, hit@5 and MRR of questions with known answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from milepost.cli.root_command import run_program
from milepost.documents.jobs import HANDLERS
from milepost.documents.search_quality import Question, measure, read_questions
from milepost.documents.store.records import Hit
from tests.documents.corpora import QUESTIONS
from tests.documents.watched_run import WatchedRun


def hit(uri: str, text: str) -> Hit:
    return Hit(0.5, "c", "d", uri, "", "", None, 0, len(text), text)


def question(text: str, kind: str = "") -> Question:
    return Question(text, re.compile("wanted words", re.IGNORECASE), "b*.txt", kind)


def test_figures_are_of_the_first_hit_that_answers() -> None:
    right, other = hit("file:///papers/b%201.txt", "the Wanted\n  words"), hit("file:///a.txt", "wanted words")
    answers = {"first": [right], "third": [other, other, right], "sixth": [other] * 5 + [right], "never": [other]}
    found = measure(lambda text, k: answers[text][:k], [question(text) for text in answers])
    [quality] = found
    assert (quality.questions, quality.hit_at_1, quality.hit_at_5) == (4, 0.25, 0.5)
    assert quality.mrr == pytest.approx((1 + 1 / 3 + 1 / 6) / 4)
    assert quality.missed == ("sixth", "never")


def test_kinds_have_figures_of_their_own() -> None:
    right = hit("b.txt", "wanted words")
    found = measure(
        lambda text, k: [right] * (text == "a"), [question("a", "x"), question("b", "y"), question("a", "y")]
    )
    assert [(quality.kind, quality.questions, quality.mrr) for quality in found] == [("x", 1, 1.0), ("y", 2, 0.5)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query,answer\na,b\n", "must begin with a line of column names: question,answer,file,kind"),
        ("question,answer\na,b\n,c\n", "line 3: question or answer is empty"),
        ("question,answer\na,(\n", "line 2: the answer is not a valid pattern"),
        ("question,answer\n", "contains no questions"),
    ],
)
def test_invalid_question_file_names_the_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_questions(tmp_path / "q.csv")


def test_command_measures_a_store(
    folder: Path, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "lamp.txt").write_text("The lamp burns paraffin.")
    (folder / "tower.txt").write_text("The tower is of granite.")
    HANDLERS["ingestion"](WatchedRun(), [str(folder)], database=database, model="hashing:64")
    (tmp_path / "q.csv").write_text(
        "question,answer,kind\nwhat burns paraffin,lamp burns,lamps\nis the tower of granite,granite,towers\nlamp,oil,lamps\n"
    )
    assert (
        run_program(
            ["documents", "measure", str(tmp_path / "q.csv"), "--mode", "meaning", "--database", database, "--json"]
        )
        == 0
    )
    lamps, towers = map(json.loads, capsys.readouterr().out.splitlines())
    assert (lamps["questions"], lamps["hit_at_1"], lamps["missed"]) == (2, 0.5, ["lamp"])
    assert towers["mrr"] == 1.0
    assert run_program(["documents", "measure", str(tmp_path / "q.csv"), "--database", database]) == 0
    table = capsys.readouterr().out
    assert [table.count(mode) for mode in ("hybrid", "meaning", "words")] == [2, 2, 2]
    (tmp_path / "q.csv").write_text("question,answer\na,[\n")
    assert run_program(["documents", "measure", str(tmp_path / "q.csv"), "--database", database]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_kept_questions_are_half_names() -> None:
    for name, count in (("english", 40), ("french_german", 20)):
        kinds = [one.kind for one in read_questions(QUESTIONS / f"{name}.csv")]
        assert (len(kinds), kinds.count("names")) == (count, count // 2)
