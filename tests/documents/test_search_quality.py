"""Questions about Debian's manuals, and ten about the demo's documents, each with words of the passage that answers it.

They were written from reading the pages, before any search was run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost.documents.jobs import ingestion
from milepost.documents.retrieval import MODES, Searcher
from milepost.documents.search_quality import Quality, measure, read_questions
from milepost.documents.store import open_store
from tests.documents.corpora import QUESTIONS as QUESTION_FILES
from tests.documents.corpora import debian_history, debian_manuals
from tests.documents.watched_run import WatchedRun
from tests.postgres_server import PostgresServer

QUESTIONS = {
    "Who founded the Debian project?": "officially founded by Ian Murdock",
    "How is the name Debian pronounced?": "official pronunciation of Debian",
    "Why was Debian 1.0 never released?": "accidentally shipped a development release",
    "Which release of Debian was the first with a code name from Toy Story?": "first Debian release with a code name",
    "Who started the port to Motorola m68k on an Atari?": "Hartmut Koptein started the first port",
    "Who wanted to make a Linux distribution for ham radio operators?": "Linux for Hams",
    "Why did Debian packages change to the ar format?": "the ar format was adopted",
    "Who was project leader from 2010 until 2013?": "Stefano Zacchiroli led Debian",
    "What is Software in the Public Interest for?": "SPI was founded to help Debian",
    "Which release was the first to run on a kernel other than Linux?": "allow use of a non-Linux kernel",
}
AMONG = 3
AT_LEAST = 9


@pytest.mark.timeout(300)
def test_nine_of_ten_questions_answered_in_top_three(tmp_path: Path) -> None:
    database = str(tmp_path / "documents.db")
    ingestion(WatchedRun(), [str(debian_history(tmp_path))], database=database)
    store = open_store(database)
    searcher = Searcher(store)
    places = {}
    for question, passage in QUESTIONS.items():
        texts = [re.sub(r"\s+", " ", hit.text) for hit in searcher.search(question, 20)]
        places[question] = next((at for at, text in enumerate(texts, 1) if passage in text), None)
    store.close()
    answered = [question for question, place in places.items() if place is not None and place <= AMONG]
    assert len(answered) >= AT_LEAST, places


def qualities(language: str, folder: Path, database: str) -> dict[tuple[str, str], Quality]:
    """Return the quality of each mode and kind of question."""
    ingestion(WatchedRun(), [str(debian_manuals(language, folder))], database=database)
    questions = read_questions(QUESTION_FILES / f"{language}.csv")
    store = open_store(database)
    searcher = Searcher(store)
    found: dict[tuple[str, str], Quality] = {
        (mode, quality.kind): quality
        for mode in MODES
        for quality in measure(lambda query, k, mode=mode: searcher.search(query, k, mode=mode), questions)  # type: ignore[misc]
    }
    store.close()
    return found


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service("postgresql"))])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return an empty document store of each kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "documents.db")
    else:
        with PostgresServer() as server:
            yield server.database("quality")


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", ["english", "french_german"])
def test_hybrid_finds_names_like_words_and_the_rest_like_the_better(
    language: str, database: str, tmp_path: Path
) -> None:
    found = qualities(language, tmp_path, database)
    assert found["hybrid", "names"].hit_at_1 >= found["words", "names"].hit_at_1 - 0.05
    for kind in ("names", "questions"):
        better = max(found["meaning", kind].mrr, found["words", kind].mrr)
        assert found["hybrid", kind].mrr >= better - 1e-9, found
    assert found["hybrid", "names"].hit_at_5 >= 0.95
