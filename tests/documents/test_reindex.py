"""The reindex job: a new index is built beside the old one, which stays searchable, and activated in one step."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest

from milepost.core.errors import JobCancelled
from milepost.documents.errors import EmptyStoreError, GenerationChangedError
from milepost.documents.ingestion import ingestion
from milepost.documents.reindex import reindex
from milepost.documents.retrieval import Searcher, search
from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.records import Generation
from tests.documents.sample_files import PARAGRAPHS
from tests.documents.watched_run import WatchedRun


@pytest.fixture
def library(folder: Path) -> Path:
    for number in range(12):
        text = "\n\n".join(f"Part {number}.{part}. {PARAGRAPHS[part % 3]}" for part in range(40))
        (folder / f"{number:02}.txt").write_text(text)
    return folder


@pytest.fixture
def database(library: Path, tmp_path: Path) -> str:
    database = str(tmp_path / "documents.db")
    ingest(library, database, model="hashing:64")
    return database


def ingest(folder: Path, database: str, **options: Any) -> dict[str, Any]:
    return ingestion(WatchedRun(), [str(folder)], database=database, **options)


def run_job(database: str, watch: Any = None, **options: Any) -> dict[str, Any]:
    return reindex(WatchedRun(watch), database=database, **options)


def rows(database: str) -> list[tuple[str, bytes]]:
    store = open_store(database)
    try:
        return [
            (chunk_id, vector.tobytes())
            for ids, vectors in store.chunk_vectors(1000)
            for chunk_id, vector in zip(ids, vectors, strict=True)
        ]
    finally:
        store.close()


def test_reindex_with_other_model_and_chunk_size(database: str, library: Path) -> None:
    searches: list[int] = []

    def watch(run: WatchedRun) -> None:
        if len(searches) < 5 and run.stages and run.stages[-1].name == "Embedding":
            searches.append(len(search("paraffin", 5, database=database)))

    result = run_job(database, watch, model="hashing:128", chunk_tokens=48)
    assert searches == [5] * 5
    assert (result["changed"], result["model"], result["documents"]) == (True, "hashing-128", 12)
    assert result["chunks_made"] == result["chunks"] == len(rows(database))
    assert result["embedded"] + result["from_cache"] == result["chunks_made"]
    store = open_store(database)
    assert [generation.number for generation in store.generations()] == [result["generation"]]
    store.prune(older_than=-1)
    assert store.counts()["vectors"] == result["embedded"]
    store.close()
    assert ingest(library, database)["unchanged"] == 12


def test_reindex_without_changes(database: str) -> None:
    before = rows(database)
    result = run_job(database)
    assert (result["changed"], result["documents"]) == (False, 12)
    assert run_job(database, model="hashing:64", chunk_tokens=240)["changed"] is False
    assert rows(database) == before


def test_reindex_equals_fresh_ingestion(database: str, library: Path, tmp_path: Path) -> None:
    run_job(database, model="hashing:128", chunk_tokens=48)
    other = str(tmp_path / "other.db")
    ingest(library, other, model="hashing:128", chunk_tokens=48)
    assert rows(database) == rows(other)


@pytest.mark.parametrize(("stage", "done"), [("Chunking", 5), ("Embedding", 100)])
def test_cancelled_job_keeps_the_old_index_and_resumes(database: str, stage: str, done: float) -> None:
    before = rows(database)

    def watch(run: WatchedRun) -> None:
        if run.stages and run.stages[-1].name == stage and run.stages[-1].done >= done:
            run.cancel()

    with pytest.raises(JobCancelled):
        run_job(database, watch, model="hashing:128", chunk_tokens=48)
    assert rows(database) == before
    store = open_store(database)
    assert len(store.generations()) == 2
    made = store.counts()["vectors"]
    store.close()
    result = run_job(database, model="hashing:128", chunk_tokens=48)
    assert result["chunks"] == len(rows(database))
    if stage == "Embedding":
        assert made > len({vector for _, vector in before})
        assert result["chunks_made"] < result["chunks"]


def test_unfinished_generations_can_be_discarded(database: str) -> None:
    def watch(run: WatchedRun) -> None:
        if run.stages and run.stages[-1].name == "Embedding":
            run.cancel()

    with pytest.raises(JobCancelled):
        run_job(database, watch, model="hashing:128")
    before = rows(database)
    assert run_job(database, discard=True)["dropped"] == [2]
    assert rows(database) == before


def test_documents_changed_during_reindex_are_in_the_new_index(database: str, library: Path) -> None:
    done = False

    def watch(run: WatchedRun) -> None:
        nonlocal done
        if not done and run.stages and run.stages[-1].name == "Embedding":
            done = True
            (library / "00.txt").write_text("Something quite different about electricity.")
            (library / "new.txt").write_text("A new document about turbines.")
            ingest(library, database)
            store = open_store(database)
            gone = next(document for document in store.documents() if document.uri.endswith("05.txt"))
            store.delete_document(gone.document_id)
            store.close()

    result = run_job(database, watch, model="hashing:128", chunk_tokens=48)
    assert result["documents"] == 12
    assert "electricity" in search("quite different electricity", 1, database=database)[0].text
    assert "turbines" in search("document about turbines", 1, database=database)[0].text


def test_concurrent_ingestion_follows_the_switch(database: str, library: Path) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(5):
                (library / "00.txt").write_text(f"Version {number} of this text.")
                ingest(library, database)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    run_job(database, model="hashing:128", chunk_tokens=48)
    thread.join()
    assert failures == []
    assert search("version 4 of this text", 1, database=database)[0].text == "Version 4 of this text."


def test_reindex_without_index_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmptyStoreError, match="run ingestion first"):
        run_job(str(tmp_path / "empty.db"))


def test_search_during_switch_uses_the_new_index(database: str) -> None:
    store = open_store(database)

    class Overtaken:
        """A store whose index is switched right after a search has read which one is active."""

        overtaken = False

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def active_generation(self) -> Generation | None:
            found = store.active_generation()
            if not self.overtaken:
                self.overtaken = True
                run_job(database, model="hashing:32")
            return found

    overtaken = Searcher(cast("DocumentStore", Overtaken())).search("towers", 2)
    assert len(overtaken) == 2
    assert overtaken == Searcher(store).search("towers", 2)
    store.close()


@pytest.mark.parametrize("stage", ["Chunking", "Embedding"])
def test_superseded_reindex_fails(database: str, stage: str) -> None:
    overtaken: list[str] = []

    def watch(run: WatchedRun) -> None:
        if not overtaken and run.stages and run.stages[-1].name == stage:
            overtaken.append(stage)
            run_job(database, model="hashing:32")

    with pytest.raises(GenerationChangedError, match="another reindex has switched the index"):
        run_job(database, watch, chunk_tokens=64)
    store = open_store(database)
    assert [generation.model for generation in store.generations()] == ["hashing-32"]
    assert store.counts()["documents"] == 12
    store.close()
