"""Conformance of document stores: refused writes of a run after a later run has begun or written the same data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from milepost.core.errors import LeaseLost
from milepost.documents.errors import GenerationChangedError, SupersededError
from milepost.documents.file_selection import select_files
from milepost.documents.folder_sync import FolderSync
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.records import Community, Extraction, Origins
from tests.documents.store_fixture import EMBEDDER, SETTINGS, StoreTests, begin, bring_in, embed, first, mention

OTHER = {**SETTINGS, "chunk_tokens": 32}
WRITES: dict[str, Callable[[DocumentStore], object]] = {
    "publish": lambda store: store.publish("x"),
    "delete": lambda store: store.delete_document("x"),
    "begin a generation": lambda store: store.begin_generation("m", 3, {}),
    "activate": lambda store: store.activate(1),
    "drop a generation": lambda store: store.drop_generation(1),
    "save extractions": lambda store: store.save_extractions("c", []),
    "save communities": lambda store: store.save_communities("entities", {}, []),
    "put vectors": lambda store: store.put_vectors([]),
    "prune": lambda store: store.prune(older_than=1e9),
}


@contextmanager
def run(database: str, job_id: str, fence: int) -> Iterator[DocumentStore]:
    """Return the store as a run of a job uses it."""
    store = open_store(database)
    store.begin_run(job_id, fence)
    try:
        yield store
    finally:
        store.close()


class FencingConformance(StoreTests):
    @pytest.mark.parametrize("write", WRITES)
    def test_stale_run_of_a_job_writes_nothing(self, database: str, write: str) -> None:
        """A worker that was suspended past its lease published an old text over a newer one when it woke up."""
        with run(database, "job", 2 * 10**15) as stale:
            bring_in(stale, "a.txt", "old")
            with run(database, "job", 3 * 10**15) as later:
                bring_in(later, "a.txt", "new")
                with pytest.raises(LeaseLost):
                    WRITES[write](stale)
                with pytest.raises(LeaseLost):
                    stale.begin_run("job", 2 * 10**15)
                assert [document.size for document in later.documents()] == [3]
                assert len(later.generations()) == 1

    def test_run_that_began_later_keeps_its_document(self, database: str) -> None:
        """A job that was lost and not run again published its text over that of the next job."""
        with run(database, "one", 2 * 10**15) as stale, run(database, "two", 3 * 10**15) as later:
            waits = begin(stale, "a.txt", "old", first(stale))
            embed(stale, waits)
            bring_in(later, "a.txt", "newer")
            with pytest.raises(SupersededError):
                stale.publish(waits.version_id)
            with pytest.raises(SupersededError):
                stale.delete_document(waits.document_id)
            bring_in(stale, "b.txt", "another document")
            assert sorted(document.size for document in later.documents()) == [5, 16]

    def test_sync_leaves_a_document_that_a_later_run_has_written(self, database: str, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        with run(database, "one", 2 * 10**15) as stale, run(database, "two", 3 * 10**15) as later:
            gone = [bring_in(stale, f"papers/{name}.txt", name) for name in ("first", "second")]
            stale.record_origins(Origins({version.document_id: (tmp_path / "folder").as_uri() for version in gone}))
            found = select_files([tmp_path / "folder"], key="papers")
            sync = FolderSync(stale, found, key="papers", force=True, max_bytes=1000)
            bring_in(later, "papers/first.txt", "newer")
            assert sync.remove() == 1
            assert [document.uri for document in later.documents()] == ["papers/first.txt"]

    def test_deleted_document_is_not_published_by_an_earlier_run(self, database: str) -> None:
        with run(database, "one", 2 * 10**15) as stale, run(database, "two", 3 * 10**15) as later:
            waits = begin(stale, "a.txt", "old", first(stale))
            embed(stale, waits)
            later.delete_document(waits.document_id)
            with pytest.raises(SupersededError):
                stale.publish(waits.version_id)
            assert list(later.documents()) == []

    def test_index_is_not_switched_back_by_an_earlier_run(self, database: str) -> None:
        with run(database, "one", 2 * 10**15) as stale, run(database, "two", 3 * 10**15) as later:
            bring_in(stale, "a.txt", "text")
            mine = stale.begin_generation(EMBEDDER.model, EMBEDDER.dimension, OTHER)
            bring_in(stale, "a.txt", "text", mine)
            theirs = later.begin_generation(EMBEDDER.model, EMBEDDER.dimension, {**OTHER, "chunk_tokens": 16})
            bring_in(later, "a.txt", "text", theirs)
            assert later.activate(theirs.number)
            with pytest.raises(GenerationChangedError):
                stale.activate(mine.number)
            assert [generation.number for generation in later.generations()] == [theirs.number]

    def test_earlier_run_does_not_replace_another_extraction(self, database: str) -> None:
        with run(database, "one", 2 * 10**15) as stale, run(database, "two", 3 * 10**15) as later:
            bring_in(later, "a.txt", "Ada Lovelace")
            [chunk] = later.unextracted("spacy", 10)
            found = Extraction(chunk.chunk_id, (mention("Ada Lovelace"),), ())
            later.save_extractions("spacy", [found])
            with pytest.raises(SupersededError):
                stale.save_extractions("rules", [found])
            stale.save_extractions("spacy", [found])  # the same work, shared
            assert later.count_unextracted("spacy") == 0

    def test_clustering_of_an_earlier_run_replaces_no_later_one(self, database: str) -> None:
        with run(database, "one", 2 * 10**15) as stale, run(database, "two", 3 * 10**15) as later:
            later.save_communities("entities", {}, [Community("new", 0, "new", 1, None, ("a",))])
            with pytest.raises(SupersededError):
                stale.save_communities("entities", {}, [Community("old", 0, "old", 1, None, ("a",))])
            assert [community.label for community in later.communities()] == ["new"]

    def test_store_without_a_run_refuses_nothing(self, database: str, store: DocumentStore) -> None:
        with run(database, "one", 2 * 10**15) as other:
            bring_in(other, "a.txt", "text")
        store.begin_run("none", 0)
        version = bring_in(store, "a.txt", "another")
        assert store.delete_document(version.document_id)

    def test_older_layout_gets_a_fences_table(self, database: str, store: DocumentStore) -> None:
        bring_in(store, "a.txt", "text")
        store._db.transact(lambda tx: tx.run("DROP TABLE fences"))  # type: ignore[attr-defined]
        store.close()
        with run(database, "one", 2 * 10**15) as later:
            assert bring_in(later, "a.txt", "newer").size == 5
