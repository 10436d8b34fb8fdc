"""The document jobs as jobs: their record, cancel receipt, and parameters as a worker decodes them."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from milepost import JobCancelled, JobManager, JobStatus, SQLiteJobManager
from milepost.core.errors import MissingExtraError
from milepost.documents.jobs import HANDLERS, clustering, extraction, ingestion, reindex
from milepost.documents.store import open_store
from milepost.worker.parameters import parameters_of
from tests.documents.job_killer import rows_of
from tests.documents.run_in_threads import run_in_threads
from tests.documents.sample_files import PARAGRAPHS
from tests.documents.watched_run import WatchedRun


@pytest.fixture
def library(folder: Path) -> Path:
    for number in range(6):
        parts = (f"Part {number}.{part}. {PARAGRAPHS[part % 3]}" for part in range(60))
        (folder / f"{number}.txt").write_text("\n\n".join(parts))
    (folder / "empty.txt").write_bytes(b"")
    return folder


@pytest.fixture
def manager(tmp_path: Path) -> JobManager:
    return SQLiteJobManager(str(tmp_path / "jobs.db"))


def test_four_jobs_run_in_sequence(manager: JobManager, library: Path, tmp_path: Path) -> None:
    database = str(tmp_path / "documents.db")
    parameters = {
        "ingestion": {"paths": [str(library)], "model": "hashing:64"},
        "extraction": {"extractor": "rules"},
        "reindex": {"chunk_tokens": 64},
        "clustering": {"of": "chunks"},
    }
    said = []
    for job_type, given in parameters.items():
        with manager.track(job_type) as run:
            run.result = HANDLERS[job_type](run, database=database, **given)
        job = manager.get_job(run.job_id)
        assert job is not None
        assert (job.status, job.progress) == (JobStatus.COMPLETED, 1.0)
        assert job.result["database"] == database
        assert sum(stage.weight or 0 for stage in job.stages if stage.parent is None) == pytest.approx(1)
        if job_type == "ingestion":
            assert job.item_counts is not None
            assert (job.item_counts.done, job.item_counts.failed) == (6, 1)
            assert job.result["failed"][0]["code"] == "empty_file"
        said.append(job.message)
    store = open_store(database)
    counts = store.counts()
    assert (counts["documents"], counts["chunks"]) == (6, job.result["nodes"])
    assert re.fullmatch(r"Ingested 6 documents, \d+ chunks \(1 failed\)", said[0])
    assert re.fullmatch(r"Extracted \d+ chunks: \d+ entities, \d+ relations", said[1])
    assert said[2] == f"Reindexed 6 documents, {counts['chunks']:,} chunks"
    assert re.fullmatch(rf"Found \d+ communities of {counts['chunks']:,} chunks, in \d levels?", said[3])
    store.close()
    manager.close()


def test_cancel_from_another_manager_stops_the_job(manager: JobManager, library: Path, tmp_path: Path) -> None:
    for number in range(6, 20):
        (library / f"{number}.txt").write_text("\n\n".join(f"{number} {n} {PARAGRAPHS[n % 3]}" for n in range(60)))
    database = str(tmp_path / "documents.db")

    def cancel(job_id: str) -> None:
        store = open_store(database)
        while not store.counts()["documents"]:
            time.sleep(0.05)
        store.close()
        manager.cancel_job(job_id, reason="enough")

    ids: list[str] = []

    def work() -> None:
        with manager.track("ingestion") as run:
            ids.append(run.job_id)
            threading.Thread(target=cancel, args=(run.job_id,)).start()
            run.result = ingestion(run, [str(library)], database=database, chunk_tokens=32)

    with pytest.raises(JobCancelled):
        work()
    job = manager.get_job(ids[0])
    assert job is not None
    assert job.status == JobStatus.CANCELLED
    assert job.receipt is not None
    assert job.receipt.confirmed
    store = open_store(database)
    assert 0 < store.counts()["documents"] < 20
    assert store.counts()["chunks"] == sum(document.chunk_count for document in store.documents())
    store.close()
    manager.close()


@pytest.mark.parametrize(("job_type", "given"), [("reindex", {"chunk_tokens": 48}), ("clustering", {"of": "chunks"})])
def test_concurrent_jobs_store_the_rows_of_one(
    job_type: str, given: dict[str, Any], library: Path, tmp_path: Path
) -> None:
    databases = [str(tmp_path / name) for name in ("one.db", "two.db")]
    for database in databases:
        ingestion(WatchedRun(), [str(library)], database=database, model="hashing:64")
    HANDLERS[job_type](WatchedRun(), database=databases[0], **given)
    run_in_threads(lambda: HANDLERS[job_type](WatchedRun(), database=databases[1], **given))
    one, two = (rows_of(Path(database)) for database in databases)
    assert one == two


@pytest.mark.parametrize("handler", [ingestion, extraction, reindex, clustering])
def test_parameters_are_json_types(handler: object) -> None:
    parameters = parameters_of(handler)  # type: ignore[arg-type]
    assert "database" in parameters.schema["properties"]
    given = {"paths": ["x"]} if handler is ingestion else {}
    assert parameters.read(given) == given


def test_second_run_reports_nothing_to_do(library: Path, tmp_path: Path) -> None:
    database = str(tmp_path / "documents.db")
    (library / "empty.txt").unlink()
    said = []
    for job_type, given in (
        ("ingestion", {"paths": [str(library)], "model": "hashing:64"}),
        ("extraction", {"extractor": "rules"}),
        ("reindex", {}),
    ):
        for _ in range(2):
            run = WatchedRun()
            HANDLERS[job_type](run, database=database, **given)
        said.append(run.message)
    assert said[0] == "Nothing to do: 6 documents unchanged"
    assert re.fullmatch(r"Nothing to do: \d+ chunks extracted before, \d+ entities, \d+ relations", said[1])
    assert said[2] == "Nothing to do: the index of 6 documents is made like this already"
    run = WatchedRun()
    assert reindex(run, database=database, discard=True)["dropped"] == []
    assert run.message == "Dropped 0 unfinished indexes"


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system takes names in UTF-8 only")
@pytest.mark.parametrize("key", [None, "k"])
def test_bad_file_with_non_utf8_name_is_listed(
    manager: JobManager, folder: Path, tmp_path: Path, key: str | None
) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xfe.txt")).write_text(PARAGRAPHS[0])
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.txt")).touch()
    with manager.track("ingestion") as run:
        run.result = ingestion(run, [str(folder)], database=str(tmp_path / "a.db"), model="hashing:64", key=key)
    job = manager.get_job(run.job_id)
    assert job is not None
    assert job.result["ingested"] == 1
    [failed] = job.result["failed"]
    assert failed["file"].endswith("/%FF.txt")
    assert (failed["code"], failed["message"]) == ("empty_file", "%FF.txt has no content")


@pytest.mark.parametrize("job_type", HANDLERS)
def test_job_without_extra_names_it_before_any_work(
    job_type: str, manager: JobManager, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    parameters = {"paths": [str(library)]} if job_type == "ingestion" else {}
    with pytest.raises(MissingExtraError, match=r"pip install 'milepost\[documents\]'"), manager.track(job_type) as run:
        HANDLERS[job_type](run, database=str(tmp_path / "documents.db"), **parameters)
    job = manager.get_job(run.job_id)
    assert job is not None
    assert job.stages == ()
