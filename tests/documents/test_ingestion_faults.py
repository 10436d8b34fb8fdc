"""The ingestion job under faults: cancels, kills, concurrent jobs, changing files, unavailable stores and endpoints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from milepost.core.errors import JobCancelled
from milepost.documents.http_endpoint import EndpointError
from milepost.documents.pipeline import settings_for
from milepost.documents.reindex import reindex
from milepost.documents.retrieval import Searcher, search
from milepost.documents.store import open_store
from tests.documents.embedding_server import serving
from tests.documents.ingestion_fixture import counts, rows, run_job
from tests.documents.run_in_threads import run_in_threads
from tests.documents.sample_files import PARAGRAPHS, write_pdf
from tests.documents.watched_run import WatchedRun
from tests.waiting import until

pytestmark = pytest.mark.timing


def when(phase: str, looks: int) -> Callable[[WatchedRun], None]:
    """Cancel at a cancellation point of a phase, as the message names it."""
    seen = 0

    def watch(run: WatchedRun) -> None:
        nonlocal seen
        seen += run.messages[-1:] != [] and run.messages[-1].startswith(phase)
        if seen >= looks:
            run.cancel()

    return watch


@pytest.mark.parametrize(
    ("phase", "looks"), [("Loading", 1), ("Loading", 20), ("Chunking", 3), ("Embedding", 1), ("Embedding", 60)]
)
def test_cancelled_job_keeps_whole_documents_and_resumes(
    library: Path, database: str, tmp_path: Path, phase: str, looks: int
) -> None:
    (library / "e2.txt").write_text("\n\n".join(f"Other {n}. {PARAGRAPHS[n % 3]}" for n in range(300)))
    with pytest.raises(JobCancelled):
        run_job(database, library, watch=when(phase, looks), chunk_tokens=32)
    stored = counts(database)
    assert stored["documents"] < 9
    store = open_store(database)
    assert stored["chunks"] == sum(document.chunk_count for document in store.documents())
    store.close()
    result, _ = run_job(database, library, chunk_tokens=32)
    assert result["ingested"] + result["unchanged"] == 9
    assert result["unchanged"] == stored["documents"]
    undisturbed = str(tmp_path / "undisturbed.db")
    run_job(undisturbed, library, chunk_tokens=32)
    assert rows(database) == rows(undisturbed)
    assert counts(database) == counts(undisturbed)


def test_concurrent_jobs_store_the_same_rows(library: Path, database: str, tmp_path: Path) -> None:
    results = run_in_threads(lambda: run_job(database, library)[0])
    assert all(result["ingested"] + result["unchanged"] == 8 for result in results)
    undisturbed = str(tmp_path / "undisturbed.db")
    run_job(undisturbed, library)
    assert rows(database) == rows(undisturbed)


def switch_index(database: str) -> None:
    """Replace the active index by an empty one with another model, as another job would."""
    store = open_store(database)
    other = store.begin_generation("hashing-128", 128, {**settings_for("hashing:128"), "chunk_tokens": 64})
    for document in list(store.documents()):
        store.delete_document(document.document_id)
    assert store.activate(other.number)
    store.close()


def test_redo_after_index_switch_can_be_cancelled(library: Path, database: str) -> None:
    run_job(database, library / "f.md")
    (library / "e.txt").write_text("\n\n".join(f"Paragraph {n}. {PARAGRAPHS[n % 3]}" for n in range(300)))
    looks = {"Embedding": 0, "Indexing": 0}

    def watch(run: WatchedRun) -> None:
        name = run.messages[-1].split(" ")[0] if run.messages else ""
        looks[name] = looks.get(name, 0) + 1
        if (name, looks[name]) == ("Embedding", 1):
            switch_index(database)
        if (name, looks[name]) == ("Indexing", 3):
            run.cancel()

    with pytest.raises(JobCancelled):
        run_job(database, library / "e.txt", watch=watch, model=None)
    assert counts(database)["documents"] == 0


def test_index_switch_during_ingestion_is_followed(library: Path, database: str) -> None:
    run_job(database, library / "f.md")
    switched = False

    def watch(run: WatchedRun) -> None:
        nonlocal switched
        if not switched and run.messages and run.messages[-1].startswith("Embedding"):
            switched = True
            switch_index(database)

    result, run = run_job(database, library, watch=watch, model=None)
    assert (result["model"], result["ingested"] + result["unchanged"]) == ("hashing-128", 8)
    assert counts(database)["documents"] >= 7
    assert run.stages[-1].name == "Persisting"


KILLED = """
import sys
from tests.documents.watched_run import WatchedRun
from milepost.documents.ingestion import ingestion
def watch(run):
    if run.messages and run.messages[-1].startswith("Embedding"):
        print(int(run.stages[0].children[0].done), flush=True)
ingestion(WatchedRun(watch), [sys.argv[1]], database=sys.argv[2], model="minilm", chunk_tokens=32)
"""


def test_killed_job_repeats_at_most_one_commit(folder: Path, database: str, tmp_path: Path) -> None:
    (folder / "a.txt").write_text("\n\n".join(f"Number {n}. {PARAGRAPHS[n % 3]}" for n in range(200)))
    with subprocess.Popen([sys.executable, "-c", KILLED, str(folder), database], stdout=subprocess.PIPE) as job:
        assert job.stdout is not None
        done = 0
        while done < 100:
            done = int(job.stdout.readline())
        job.send_signal(signal.SIGKILL)
    committed = counts(database)["vectors"]
    assert committed >= 64
    assert counts(database)["documents"] == 0
    result, _ = run_job(database, folder, model="minilm", chunk_tokens=32)
    assert result["embedded"] == result["chunks"] - committed
    assert result["chunks"] + 64 >= result["embedded"] + done
    undisturbed = str(tmp_path / "undisturbed.db")
    run_job(undisturbed, folder, model="minilm", chunk_tokens=32)
    assert rows(database) == rows(undisturbed)


def test_file_changed_while_read_is_read_again(folder: Path, database: str) -> None:
    path = folder / "a.txt"
    path.write_text("before " * 100_000)
    changed = False

    def watch(run: WatchedRun) -> None:
        nonlocal changed
        if not changed and run.stages and run.stages[-1].done > 0:
            changed = True
            path.write_text("after " * 10)

    result, _ = run_job(database, path, watch=watch)
    assert result["ingested"] == 1
    assert "after" in search("after", 1, database=database)[0].text
    assert counts(database)["chunks"] == 1


def test_temporary_endpoint_failure_only_delays(folder: Path, database: str) -> None:
    (folder / "a.txt").write_text("\n\n".join(f"Number {n}. {PARAGRAPHS[n % 3]}" for n in range(50)))
    with serving() as server:
        server.failures = [(429, {"Retry-After": "0.1"}, b""), (500, {}, b"")]
        result, _ = run_job(database, folder, model="http:small", endpoint=server.url)
        assert result["model"] == "http:small"
        store = open_store(database)
        hits = Searcher(store, endpoint=server.url).search("Number 7", 1)
        assert hits[0].score > 0.2
        store.close()


def test_waiting_for_a_locked_store_is_shown_as_message(library: Path, database: str) -> None:
    import sqlite3

    run_job(database, library / "f.md")
    locked = sqlite3.connect(database, isolation_level=None)
    locked.execute("BEGIN IMMEDIATE")

    def watch(run: WatchedRun) -> None:
        if locked.in_transaction and any("busy" in message for message in run.messages):
            locked.execute("ROLLBACK")

    result, run = run_job(database, library, watch=watch)
    locked.close()
    assert result["ingested"] == 7
    assert any("busy" in message for message in run.messages)


def test_job_leaks_no_file_descriptors(library: Path, database: str) -> None:
    run_job(database, library)
    before = len(os.listdir("/proc/self/fd"))
    (library / "f.md").write_text("changed")
    run_job(database, library)
    (library / "f.md").write_text("changed again")
    with pytest.raises(JobCancelled):
        run_job(database, library, watch=when("Loading", 1))
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)  # threads of earlier tests open and close some


def test_cancel_stops_a_hanging_page(folder: Path, database: str) -> None:
    write_pdf(folder / "a.pdf", [f"page {n}" for n in range(300)])
    fifo = folder / "b.txt"
    fifo.write_text("x" * 1000)
    started = time.monotonic()

    def watch(run: WatchedRun) -> None:
        if run.stages:
            run.cancel()

    with pytest.raises(JobCancelled):
        run_job(database, folder, watch=watch)
    assert time.monotonic() - started < 20


def test_changed_endpoint_model_does_not_corrupt_the_index(
    folder: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.txt").write_text(PARAGRAPHS[0])
    with serving() as server:
        monkeypatch.setenv("MILEPOST_EMBEDDING_URL", server.url)
        run_job(database, folder, model="http:m")
        (folder / "b.txt").write_text(PARAGRAPHS[1])
        other = (200, {}, b'{"data": [{"index": 0, "embedding": [3, 4]}]}')
        server.failures = [other]
        with pytest.raises(EndpointError, match="changed its dimension from 64 to 2"):
            run_job(database, folder, model=None)
        server.failures = [other]
        with pytest.raises(EndpointError, match="changed its dimension from 64 to 2"):
            search("towers", database=database)
        server.failures = [other]
        with pytest.raises(ValueError, match="http:m has 2 dimensions and had 64"):
            reindex(WatchedRun(), database=database, chunk_tokens=32)
        assert run_job(database, folder, model=None)[0]["ingested"] == 1
        assert len(search("towers", database=database)) == 2
