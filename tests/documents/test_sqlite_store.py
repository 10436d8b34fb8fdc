"""SQLite as a document store: the conformance suite, and file-specific behaviour."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from milepost.documents.errors import StoreBusyError
from milepost.documents.retrieval import Searcher
from milepost.documents.store import check_health, default_database, open_store
from milepost.documents.store import database as port_module
from milepost.documents.store import sqlite as sqlite_module
from milepost.documents.store.sqlite import SqliteDatabase
from tests.documents.store_conformance import StoreConformance
from tests.documents.store_fixture import EMBEDDER, bring_in, first
from tests.forking import fork


class TestSqliteStore(StoreConformance):
    @pytest.fixture
    def database(self, tmp_path: Path) -> str:
        return str(tmp_path / "new" / "documents.db")


def test_database_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILEPOST_DOCUMENTS", str(tmp_path / "a.db"))
    assert default_database() == str(tmp_path / "a.db")
    monkeypatch.delenv("MILEPOST_DOCUMENTS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_database() == str(tmp_path / "milepost" / "documents.db")
    for name in (f"sqlite:///{tmp_path}/b.db", f"{tmp_path}/b.db", tmp_path / "b.db"):
        store = open_store(name)
        first(store)
        assert str(store) == f"{tmp_path}/b.db"
        store.close()
    with pytest.raises(ValueError, match="mysql"):
        open_store("mysql://x")


def test_locked_store_is_retried(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = open_store(path)
    first(store)
    reasons: list[str] = []
    locked = sqlite3.connect(path, isolation_level=None)
    locked.execute("BEGIN IMMEDIATE")

    def wait(reason: str) -> None:
        reasons.append(reason)
        if locked.in_transaction:
            locked.execute("COMMIT")

    store.on_wait = wait
    bring_in(store, "a.txt", "text")
    locked.close()
    assert "busy" in reasons[0]
    assert store.counts()["documents"] == 1
    store.close()


def test_waiting_callback_may_abort(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = open_store(path)
    first(store)

    def stop(reason: str) -> None:
        raise KeyboardInterrupt

    store.on_wait = stop
    locked = sqlite3.connect(path, isolation_level=None)
    locked.execute("BEGIN IMMEDIATE")
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        bring_in(store, "a.txt", "text")
    assert time.monotonic() - before < 20
    locked.close()
    store.close()


def test_retries_end_after_the_maximum_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "MAX_WAIT_SECONDS", 0.0)
    path = tmp_path / "a.db"
    database = SqliteDatabase(path)
    database.transact(lambda tx: None)
    locked = sqlite3.connect(path, isolation_level=None)
    locked.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError, match=r"a\.db"):
        port_module.retry_while_busy(lambda: database.transact(lambda tx: None), None, max_wait=0.1)
    locked.close()
    database.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_loses_nothing_when_its_parent_closes_the_store(tmp_path: Path) -> None:
    """Regression: the child had no lock on the file, so its parent deleted the log that the child went on writing to."""
    database = SqliteDatabase(tmp_path / "a.db")
    child_wrote, parent_closed = os.pipe(), os.pipe()

    def put(name: str) -> None:
        database.transact(lambda tx: tx.run("INSERT INTO meta (name, value) VALUES (?, '')", (name,)))

    def write_twice() -> None:
        put("child/1")
        os.write(child_wrote[1], b"x")
        os.read(parent_closed[0], 1)
        put("child/2")

    def close() -> None:
        os.read(child_wrote[0], 1)
        database.close()
        os.write(parent_closed[1], b"x")

    put("parent")
    closing = threading.Thread(target=close)
    closing.start()
    assert fork(write_twice) == 0
    closing.join()
    found = database.transact(lambda tx: tx.all("SELECT name FROM meta WHERE name LIKE 'child/%'"), write=False)
    assert found == [("child/1",), ("child/2",)]
    database.close()


def test_full_disk_is_busy_and_rolls_back(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "a.db")
    database.transact(lambda tx: tx.run("PRAGMA max_page_count = 60"), write=False)
    with pytest.raises(StoreBusyError, match="full"):
        database.transact(
            lambda tx: tx.many(
                "INSERT INTO segments VALUES (?, 0, 0, ?, '[]')", [(str(n), "x" * 4000) for n in range(100)]
            )
        )
    assert database.transact(lambda tx: tx.one("SELECT count(*) FROM segments"), write=False) == (0,)
    database.close()


def test_failed_transaction_rolls_back(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "a.db")

    def work(tx: port_module.Transaction) -> None:
        tx.run("INSERT INTO segments VALUES ('t', 0, 0, 'x', '[]')")
        raise KeyError

    with pytest.raises(KeyError):
        database.transact(work)
    assert database.transact(lambda tx: tx.one("SELECT count(*) FROM segments"), write=False) == (0,)
    database.close()


def test_newer_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = open_store(path)
    first(store)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'layout'")
    connection.close()
    with pytest.raises(ValueError, match="layout 99"):
        open_store(path).active_generation()


def test_nearest_of_thousands_of_chunks_is_sorted(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a.db")
    bring_in(store, "a.txt", " ".join(f"word{number}" for number in range(40_000)))
    chunks = store.counts()["chunks"]
    assert chunks > 2000
    query = EMBEDDER.embed(["word777"])[0]
    hits = store.nearest(query, 10)
    assert np.all(np.diff([hit.score for hit in hits]) <= 0)
    store.close()


def test_file_that_is_not_a_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database, but a text of some length")
    for path in (tmp_path / "notes.txt", tmp_path):
        store = open_store(path)
        with pytest.raises(ValueError, match=f"{path} cannot be used as a document store"):
            store.active_generation()
        store.close()


def test_without_fts5_searches_are_by_meaning_until_a_python_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a.db")
    monkeypatch.setenv("MILEPOST_DOCUMENTS", path)
    with monkeypatch.context() as lacking:
        lacking.setattr(sqlite_module, "has_fts5", lambda connection: False)
        store = open_store(path)
        bring_in(store, "a.txt", "The lamp burns paraffin.")
        bring_in(store, "a.txt", "The lamp burns oil.")
        assert [hit.uri for hit in Searcher(store).search("lamp")] == ["a.txt"]
        with pytest.raises(ValueError, match="mode=meaning"):
            Searcher(store).search("lamp", mode="words")
        store.close()
        assert [warning for warning in check_health() if "FTS5" in warning]
    assert not [warning for warning in check_health() if "FTS5" in warning]
    store = open_store(path)
    assert [hit.text for hit in Searcher(store).search("oil", mode="words")] == ["The lamp burns oil."]
    assert Searcher(store).search("paraffin", mode="words") == []
    store.close()


def test_without_fts5_a_store_with_its_index_of_words_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite cannot change the index without FTS5. The module is renamed, so that SQLite itself reports it missing."""
    path = tmp_path / "a.db"
    store = open_store(path)
    version = bring_in(store, "a.txt", "The lamp burns oil.")
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'fts5', 'fts5_gone') WHERE name = 'words'")
        connection.commit()
    monkeypatch.setattr(sqlite_module, "has_fts5", lambda connection: False)
    store = open_store(path)
    assert [hit.uri for hit in Searcher(store).search("lamp")] == ["a.txt"]
    with pytest.raises(ValueError, match=r"a\.db has an index of words.*use a Python with FTS5"):
        bring_in(store, "b.txt", "text")
    with pytest.raises(ValueError, match="use a Python with FTS5"):
        store.delete_document(version.document_id)
    assert store.counts()["documents"] == 1
    store.close()
