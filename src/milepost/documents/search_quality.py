"""Measure a search with questions whose answers are known."""

from __future__ import annotations

import csv
import re
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from milepost.documents.store.records import Hit

DEPTH: Final = 20
"""Hits that are examined for each question."""
_AMONG: Final = 5
_COLUMNS: Final = ("question", "answer", "file", "kind")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, a pattern of the text that answers it, a glob of the file's name, and a kind to group by."""

    text: str
    answer: re.Pattern[str]
    file: str = "*"
    kind: str = ""

    def is_answered_by(self, hit: Hit) -> bool:
        """Return whether a hit contains the answer. Line breaks count as spaces."""
        name = unquote(urlsplit(hit.uri).path).rpartition("/")[2]
        return fnmatchcase(name, self.file) and self.answer.search(" ".join(hit.text.split())) is not None


@dataclass(frozen=True, slots=True)
class Quality:
    """How well the questions of a kind were answered.

    `hit_at_1` and `hit_at_5` are the shares of questions answered by the first hit and by the first five. `mrr` is the
    mean of 1 / place of the first answer, 0 beyond place 20. `seconds` is the median time of a search. `missed` are the
    questions not answered by the first five hits.
    """

    kind: str
    questions: int
    hit_at_1: float
    hit_at_5: float
    mrr: float
    seconds: float
    missed: tuple[str, ...] = ()


def read_questions(path: str | Path) -> list[Question]:
    """Return the questions of a CSV file with the columns `question` and `answer`, and optionally `file` and `kind`.

    Raises `ValueError`, naming the line, for a missing column or an invalid pattern.
    """
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"question", "answer"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{path} must begin with a line of column names: {','.join(_COLUMNS)}")
        found = []
        for row in rows:
            question, answer = (row["question"] or "").strip(), row["answer"] or ""
            if not question or not answer:
                raise ValueError(f"{path}, line {rows.line_num}: question or answer is empty")
            try:
                pattern = re.compile(answer, re.IGNORECASE)
            except re.error as error:
                raise ValueError(f"{path}, line {rows.line_num}: the answer is not a valid pattern: {error}") from None
            found.append(Question(question, pattern, row.get("file") or "*", row.get("kind") or ""))
    if not found:
        raise ValueError(f"{path} contains no questions")
    return found


def measure(search: Callable[[str, int], Sequence[Hit]], questions: Iterable[Question]) -> list[Quality]:
    """Ask all questions, and return the quality of each kind in order of appearance.

    `search` is called with a query and a number of hits.
    """
    places: dict[str, list[tuple[Question, int | None, float]]] = {}
    for question in questions:
        began = time.perf_counter()
        hits = search(question.text, DEPTH)
        took = time.perf_counter() - began
        place = next((at for at, hit in enumerate(hits, 1) if question.is_answered_by(hit)), None)
        places.setdefault(question.kind, []).append((question, place, took))
    return [_quality(kind, rows) for kind, rows in places.items()]


def _quality(kind: str, rows: list[tuple[Question, int | None, float]]) -> Quality:
    def within(most: int) -> float:
        return sum(place is not None and place <= most for _, place, _ in rows) / len(rows)

    return Quality(
        kind,
        len(rows),
        within(1),
        within(_AMONG),
        sum(1 / place for _, place, _ in rows if place is not None) / len(rows),
        statistics.median(took for *_, took in rows),
        tuple(question.text for question, place, _ in rows if place is None or place > _AMONG),
    )
