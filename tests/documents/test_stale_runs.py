"""A document job that is suspended past its lease changes nothing after it wakes up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from milepost.core.errors import LeaseLost
from milepost.documents.clustering import clustering
from milepost.documents.extraction import extraction
from milepost.documents.ingestion import ingestion
from milepost.documents.reindex import reindex
from milepost.documents.store import open_store
from tests.documents.watched_run import WatchedRun

OLD, NEW = "Ada Lovelace wrote an old text. " * 20, "Grace Hopper wrote a new text. " * 20
LATER = 3 * 10**15


def run_of(job_id: str, fence: int, wakes_in: str = "", meanwhile: Callable[[], object] | None = None) -> WatchedRun:
    """Return a run that is suspended in the phase `wakes_in` of its message while `meanwhile` happens."""
    done: list[object] = []

    def watch(run: WatchedRun) -> None:
        is_there = run._stage_name == wakes_in or (run.messages[-1:] and run.messages[-1].startswith(wakes_in))
        if meanwhile is not None and not done and is_there:
            done.append(True)
            meanwhile()

    run = WatchedRun(watch)
    run.job_id, run.token = job_id, f"{fence}:nonce"
    return run


def text_of(database: str) -> str:
    store = open_store(database)
    try:
        return " ".join(segment.text for d in store.documents() for segment in store.segments(d.text_id))
    finally:
        store.close()


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "a.txt"
    path.write_text(OLD)
    return path


@pytest.mark.parametrize("stage", ["Loading", "Chunking", "Embedding"])
def test_woken_ingestion_keeps_newer_documents(file: Path, database: str, stage: str) -> None:
    """The index had the old text of a file after the record reported that the new one was ingested."""

    def next_run() -> None:
        file.write_text(NEW)
        ingestion(run_of("job", LATER), [str(file)], database=database, model="hashing:64")

    stale = run_of("job", LATER - 1, stage, next_run)
    with pytest.raises(LeaseLost):
        ingestion(stale, [str(file)], database=database, model="hashing:64")
    assert text_of(database).strip() == NEW.strip()


def test_woken_ingestion_does_not_restore_deleted_files(file: Path, database: str) -> None:
    def next_run() -> None:
        file.unlink()
        with pytest.raises(ValueError, match="not_found"):
            ingestion(run_of("job", LATER), [str(file)], database=database, model="hashing:64")

    with pytest.raises(LeaseLost):
        ingestion(run_of("job", LATER - 1, "Embedding", next_run), [str(file)], database=database, model="hashing:64")
    assert text_of(database) == ""


def test_ingestion_leaves_the_text_of_a_job_that_began_later(file: Path, database: str) -> None:
    def other_job() -> None:
        file.write_text(NEW)
        ingestion(run_of("other", LATER), [str(file)], database=database, model="hashing:64")

    earlier = run_of("job", LATER - 1, "Embedding", other_job)
    result = ingestion(earlier, [str(file)], database=database, model="hashing:64")
    assert (result["ingested"], result["unchanged"]) == (0, 1)
    assert text_of(database).strip() == NEW.strip()


def test_woken_reindex_switches_no_index(file: Path, database: str) -> None:
    ingestion(run_of("first", LATER - 9), [str(file)], database=database, model="hashing:64")

    def next_run() -> None:
        reindex(run_of("job", LATER), database=database, model="hashing:32")

    with pytest.raises(LeaseLost):
        reindex(run_of("job", LATER - 1, "Embedding", next_run), database=database, model="hashing:32", chunk_tokens=16)
    store = open_store(database)
    active = store.active_generation()
    store.close()
    assert active is not None
    assert active.settings["chunk_tokens"] != 16


def test_woken_extraction_and_clustering_save_nothing(file: Path, database: str) -> None:
    ingestion(run_of("first", LATER - 9), [str(file)], database=database, model="hashing:64")

    def next_extraction() -> None:
        extraction(run_of("job", LATER), database=database, extractor="rules", embed=False)

    with pytest.raises(LeaseLost):
        extraction(
            run_of("job", LATER - 1, "Extracting", next_extraction), database=database, extractor="rules", embed=False
        )

    def next_clustering() -> None:
        clustering(run_of("clusters", LATER), of="chunks", database=database)

    with pytest.raises(LeaseLost):
        clustering(run_of("clusters", LATER - 1, "Loading", next_clustering), of="chunks", database=database)
