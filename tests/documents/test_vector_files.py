"""The files beside an SQLite store that hold its vectors for other processes."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from milepost.documents.jobs import HANDLERS
from milepost.documents.retrieval import Searcher
from milepost.documents.store import DocumentStore, open_store, sqlite_vectors
from tests.documents.sample_files import PARAGRAPHS
from tests.documents.store_fixture import EMBEDDER, bring_in
from tests.documents.watched_run import WatchedRun

TEXT = "\n\n".join(f"lamp {n} tower {n * 7 % 13} " * 8 for n in range(60))


@pytest.fixture(autouse=True)
def _saved_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_vectors, "_SAVED_AFTER", 20)


def vector_files(database: str) -> list[Path]:
    return sorted(Path(database).parent.glob("documents.db-vectors-*"))


def scores(database: str) -> list[float]:
    """Return the scores of a search of a new process."""
    store = open_store(database)
    found = [hit.score for hit in store.nearest(EMBEDDER.embed(["lamp 17"])[0], 20)]
    store.close()
    return found


def overwrite_vectors(database: str) -> None:
    """Make all vectors in the database zero, so that a search shows where it reads them."""
    connection = sqlite3.connect(database)
    connection.execute("UPDATE vectors SET vector = zeroblob(length(vector))")
    connection.commit()
    connection.close()


@pytest.fixture
def saved(database: str) -> DocumentStore:
    """Return a store whose vectors are saved."""
    store = open_store(database)
    bring_in(store, "a.txt", TEXT)
    store.nearest(EMBEDDER.embed(["lamp"])[0], 1)
    assert len(vector_files(database)) == 1
    store.close()
    return store


def test_new_process_reads_vectors_from_the_file(saved: DocumentStore, database: str) -> None:
    before = scores(database)
    assert stat.S_IMODE(vector_files(database)[0].stat().st_mode) == 0o600
    overwrite_vectors(database)
    assert scores(database) == before
    bring_in(saved, "b.txt", "lamp 17 lamp 17")
    assert scores(database)[0] > before[0], "a new document is read from the database"
    vector_files(database)[0].unlink()
    assert 0.0 in scores(database), "without the file everything is"


@pytest.mark.parametrize("change", ["truncated", "missing", "unwritable"])
def test_unusable_file_is_ignored(saved: DocumentStore, database: str, change: str) -> None:
    before = scores(database)
    [path] = vector_files(database)
    if change == "truncated":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        path.unlink()
    if change == "unwritable":  # a folder in its place, since root may write to a read-only one
        path.mkdir()
    assert scores(database) == before


def test_file_of_a_later_state_is_not_used_by_a_restored_database(
    saved: DocumentStore, database: str, tmp_path: Path
) -> None:
    backup = tmp_path / "backup.db"
    shutil.copy(database, backup)
    saved.delete_document(next(iter(saved.documents())).document_id)
    bring_in(saved, "b.txt", TEXT.replace("lamp", "paraffin"))
    scores(database)
    saved.close()
    shutil.copy(backup, database)
    bring_in(saved, "c.txt", "electricity " * 3)
    restored = {hit.uri: hit.text for hit in saved.nearest(EMBEDDER.embed(["lamp 3"])[0], 100)}
    assert set(restored) == {"a.txt", "c.txt"}
    assert "paraffin" not in str(restored)
    saved.close()


def test_ingestion_and_reindex_build_the_approximate_index(
    folder: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILEPOST_DOCUMENTS_APPROXIMATE_FROM", "30")
    (folder / "a.txt").write_text("\n\n".join(f"{n}. {PARAGRAPHS[n % 3]}" for n in range(60)))
    run = WatchedRun()
    HANDLERS["ingestion"](run, [str(folder)], database=database, model="hashing:64", chunk_tokens=32)
    assert "the approximate index is up to date" in run.logged
    again = WatchedRun()
    HANDLERS["ingestion"](again, [str(folder)], database=database)
    assert "the approximate index is up to date" not in again.logged
    reindexed = WatchedRun()
    HANDLERS["reindex"](reindexed, database=database, model="hashing:96")
    assert "the approximate index is up to date" in reindexed.logged
    store = open_store(database)
    assert Searcher(store).search("Ada Lovelace", 3)
    store.close()
