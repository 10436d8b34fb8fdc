"""Searches that the operator's server reranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost.cli.root_command import run_program
from milepost.documents.http_endpoint import EndpointError
from milepost.documents.retrieval import Searcher
from milepost.documents.store import open_store
from tests.documents.embedding_server import Server, serving
from tests.documents.store_fixture import bring_in


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as started:
        monkeypatch.setenv("MILEPOST_RERANK_URL", started.url)
        monkeypatch.setenv("MILEPOST_RERANK_KEY", "sk-rerank")
        monkeypatch.setenv("MILEPOST_RERANK_MODEL", "bge-reranker")
        started.relevance = lambda text: int(text.rsplit(None, 1)[1]) / 10
        yield started


@pytest.fixture
def searcher(database: str) -> Iterator[Searcher]:
    store = open_store(database)
    for number in range(8):
        bring_in(store, f"{number}.txt", f"lamp tower {number}")
    yield Searcher(store)
    store.close()


def test_relevance_ranks_and_scores(server: Server, searcher: Searcher) -> None:
    hits = searcher.search("lamp tower 3", 3, rerank=True)
    assert [(hit.uri, hit.score) for hit in hits] == [("7.txt", 0.7), ("6.txt", 0.6), ("5.txt", 0.5)]
    assert len(searcher.search("lamp", 8, rerank=True, min_score=0.45)) == 3
    [(path, body, headers), _] = server.requests
    assert (path, body["model"], body["query"], body["top_n"]) == ("/v1/rerank", "bge-reranker", "lamp tower 3", 8)
    assert headers["Authorization"] == "Bearer sk-rerank"
    assert searcher.search("lamp tower 3", 1)[0].uri == "3.txt"
    assert searcher.search("lamp", under="none", rerank=True) == []
    assert len(server.requests) == 2


def test_failures_are_retried_and_reported(server: Server, searcher: Searcher) -> None:
    server.failures = [(500, {}, b"busy"), (200, {}, b'{"results": [{"index": 0, "relevance_score": NaN}]}')]
    assert searcher.search("lamp", 1, rerank=True)[0].uri == "7.txt"
    server.failures = [(401, {}, b"wrong key sk-rerank")]
    with pytest.raises(EndpointError, match=r"status 401: wrong key \*\*\*"):
        searcher.search("lamp", rerank=True)


def test_rerank_without_a_server_names_the_variable(
    database: str, searcher: Searcher, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_program(["search", "lamp", "--rerank", "--database", database]) != 0
    assert "MILEPOST_RERANK_URL" in capsys.readouterr().err


def test_command_shows_the_chunks_around_a_hit(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(database)
    bring_in(store, "long.txt", "\n\n".join(f"lamp {n} " * 30 for n in range(3)))
    store.close()
    assert (
        run_program(["search", "lamp", "1", "-k", "1", "--context", "2", "--mode", "words", "--database", database])
        == 0
    )
    shown = capsys.readouterr().out
    assert all(f"lamp {number}" in shown for number in range(3))
