"""PostgreSQL as a document store, on a real server: the conformance suite, the four jobs, and outages."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost.core.errors import InvalidInputError
from milepost.documents.errors import StoreBusyError
from milepost.documents.jobs import HANDLERS
from milepost.documents.retrieval import Searcher, search
from milepost.documents.store import database as port_module
from milepost.documents.store import open_store, postgres, postgres_words
from milepost.documents.store.postgres import PostgresDatabase
from tests.documents.sample_files import PARAGRAPHS
from tests.documents.search_conformance import NAMES, REPEATED
from tests.documents.store_conformance import StoreConformance
from tests.documents.store_fixture import bring_in, first
from tests.documents.sync_conformance import SyncConformance
from tests.documents.watched_run import WatchedRun
from tests.postgres_server import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.service("postgresql")]
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Run one server for all tests of this file."""
    with PostgresServer() as started:
        yield started


@pytest.fixture
def database(server: PostgresServer) -> str:
    """Create an empty database."""
    return server.database(f"documents{next(NUMBERS)}")


class TestPostgresStore(StoreConformance):
    @pytest.fixture
    def database(self, server: PostgresServer) -> str:
        return server.database(f"conformance{next(NUMBERS)}")


class TestPostgresFolderSync(SyncConformance):
    """Ingestion with `sync`."""


def test_words_score_alike_in_both_databases(database: str, tmp_path: Path) -> None:
    hits: list[dict[str, list[tuple[str, float]]]] = []
    for name in (database, str(tmp_path / "a.db")):
        store = open_store(name)
        for uri, content in {**REPEATED, **NAMES}.items():
            bring_in(store, uri, content)
        hits.append(
            {
                query: [(hit.uri, hit.score) for hit in Searcher(store).search(query, mode="words")]
                for query in ("paraffin", "dpkg-divert", "paraffin-lamp", "dpkg-divert --list of paraffin", "E_4711")
            }
        )
        store.close()
    of_postgres, of_sqlite = hits
    for query, found in of_sqlite.items():
        assert [uri for uri, _ in of_postgres[query]] == [uri for uri, _ in found], query
        assert [score for _, score in of_postgres[query]] == pytest.approx(
            [score for _, score in found], abs=0.15
        )  # lengths count different words here


def test_places_of_a_frequent_phrase_are_not_counted(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting them took a second for each phrase of a query in 20,000 chunks."""
    store = open_store(database)
    for uri, content in REPEATED.items():
        bring_in(store, uri, content)
    terms = [("paraffin", "lamp")]
    [counted, *_] = store.search(10, terms=terms)
    monkeypatch.setattr(postgres_words, "_MAX_COUNTED", 0)
    [once, *_] = store.search(10, terms=terms)
    store.close()
    assert once.uri == counted.uri == "often.txt"
    assert 0 < once.score < counted.score


def test_long_search_by_words_ends_with_a_clear_error(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It kept all other requests of the process from the connection."""
    import psycopg

    monkeypatch.setattr(postgres, "_WORDS_MILLISECONDS", 100)
    store = open_store(database)
    bring_in(store, "a.txt", "A text of towers.")
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE words IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(InvalidInputError, match=r"longer than 0\.1 s") as refused:
            store.search(10, terms=[("towers",)])
        assert refused.value.field == "query"
    assert store.search(10, terms=[("towers",)])
    store.close()


def test_jobs_store_the_same_in_both_databases(database: str, folder: Path, tmp_path: Path) -> None:
    for number in range(5):
        (folder / f"{number}.txt").write_text("\n\n".join(f"{number}.{n}. {PARAGRAPHS[n % 3]}" for n in range(40)))
    results = {}
    for name in (database, str(tmp_path / "a.db")):
        given = {
            "ingestion": {"paths": [str(folder)], "model": "hashing:64"},
            "extraction": {"extractor": "rules"},
            "reindex": {"chunk_tokens": 64},
            "clustering": {"of": "chunks"},
        }
        made = []
        for job_type, parameters in given.items():
            result = HANDLERS[job_type](WatchedRun(), database=name, **parameters)
            made.append({key: result[key] for key in result if key not in ("database", "seconds", "largest")})
        store = open_store(name)
        hits = [
            round(hit.score, 5) for hit in search("the keepers of the lighthouse", 5, mode="meaning", database=name)
        ]
        results[name] = (made, store.counts(), store.edges(), store.communities("chunks", limit=1000), hits)
        store.close()
    mine, theirs = results.values()
    assert mine == theirs


def test_passwords_are_not_shown(database: str) -> None:
    secret = database.replace("postgres@", "postgres:secret@")
    assert str(PostgresDatabase(secret)) == database.replace("postgres@", "")


def test_unavailable_server_is_retried(database: str, server: PostgresServer) -> None:
    store = open_store(database)
    first(store)
    bring_in(store, "a.txt", "text")
    reasons: list[str] = []

    def wait(reason: str) -> None:
        reasons.append(reason)
        if len(reasons) == 1:
            server.start()

    store.on_wait = wait
    server.stop("immediate")
    bring_in(store, "b.txt", "another text")
    assert "busy" in reasons[0]
    assert store.counts()["documents"] == 2
    store.close()


def test_held_lock_is_retried(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    monkeypatch.setattr(postgres, "_LOCK_MILLISECONDS", 100)
    store = PostgresDatabase(database)
    store.transact(lambda tx: None)
    with psycopg.connect(database) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (postgres._WRITER,))
        before = time.monotonic()
        with pytest.raises(StoreBusyError):
            port_module.retry_while_busy(lambda: store.transact(lambda tx: None), None, max_wait=0.3)
        assert time.monotonic() - before < 60
    store.transact(lambda tx: None)
    store.close()


def test_wrong_password_or_database_fails_at_once(database: str) -> None:
    store = open_store(database + "_missing")
    with pytest.raises(ValueError, match="does not exist"):
        store.counts()
