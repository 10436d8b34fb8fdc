"""The ingestion job, on real files: results that agree with the store, resume, cancel, bad input, two at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from milepost.core.errors import JobCancelled
from milepost.documents.ingestion import NothingIngested, ingestion
from milepost.documents.pipeline import settings_for
from milepost.documents.searching import Searcher, search
from milepost.documents.store import open_store
from tests.documents.bad_files import BAD
from tests.documents.embedding_server import serving
from tests.documents.together import at_once
from tests.documents.watched_run import WatchedRun
from tests.documents.writing import PARAGRAPHS, write_docx, write_epub, write_odt, write_pdf

FAST: dict[str, Any] = {"model": "hashing:64"}


@pytest.fixture
def database(tmp_path: Path) -> str:
    return str(tmp_path / "documents.db")


@pytest.fixture
def library(folder: Path) -> Path:
    """A folder with a document of every format."""
    write_pdf(folder / "a.pdf", [*PARAGRAPHS, "A last page about paraffin."])
    write_docx(folder / "b.docx")
    write_epub(folder / "c.epub")
    write_odt(folder / "d.odt")
    (folder / "e.txt").write_text("\n\n".join(f"Paragraph {n}. {PARAGRAPHS[n % 3]}" for n in range(60)))
    (folder / "f.md").write_text("# Towers\n\n" + PARAGRAPHS[0])
    (folder / "g.csv").write_text("name,height\nBengtskar,52\n")
    (folder / "h.html").write_text(f"<html><h1>Towers</h1><p>{PARAGRAPHS[1]}")
    return folder


def run_job(database: str, *paths: Path, watch: Any = None, **options: Any) -> tuple[dict[str, Any], WatchedRun]:
    run = WatchedRun(watch)
    result = ingestion(run, [str(path) for path in paths], database=database, **{**FAST, **options})
    return result, run


def rows(database: str) -> list[tuple[Any, ...]]:
    """What readers can see of a store, without times."""
    store = open_store(database)
    try:
        found: list[tuple[Any, ...]] = [
            (d.uri, d.title, d.format, d.size, d.content_hash, d.chunk_count, d.warnings) for d in store.documents()
        ]
        for ids, vectors in store.chunk_vectors(100):
            found += [(chunk_id, vector.tobytes()) for chunk_id, vector in zip(ids, vectors, strict=True)]
        return found
    finally:
        store.close()


def counts(database: str) -> dict[str, int]:
    store = open_store(database)
    try:
        return store.counts()
    finally:
        store.close()


def test_a_folder_of_every_format(library: Path, database: str) -> None:
    result, run = run_job(database, library)
    assert (result["documents"], result["ingested"], result["failed"], result["skipped"]) == (8, 8, [], 0)
    stored = counts(database)
    assert (stored["documents"], stored["chunks"]) == (result["ingested"], result["chunks"])
    assert stored["vectors"] == result["embedded"]
    assert result["embedded"] + result["from_cache"] == result["chunks"]
    assert set(result["seconds"]) == {"load", "chunk", "embed", "persist"}
    assert (run.ledger.done, run.ledger.failed, run.ledger.skipped) == (8, 0, 0)
    assert run.fraction == 1.0
    assert [(stage.name, stage.done) for stage in run.stages][:3] == [
        ("Loading", sum(path.stat().st_size for path in library.iterdir())),
        ("Chunking", 8),
        ("Embedding", result["chunks"]),
    ]
    assert all(stage.total is None or stage.done == stage.total for stage in run.stages)
    assert run.progress_seen == sorted(run.progress_seen)
    assert run.checkpoints[-1]["chunks"] == result["chunks"]
    hits = search("keepers burned paraffin", 3, database=database)
    assert any("paraffin" in hit.text for hit in hits)
    assert hits[0].score >= hits[1].score >= hits[2].score


def test_pages_and_headings_reach_the_hits(library: Path, database: str) -> None:
    run_job(database, library)
    hits = search("a last page about paraffin", 50, database=database)
    assert {hit.page for hit in hits if hit.uri.endswith("a.pdf")} == {1} or any(hit.page for hit in hits)
    assert "Towers" in {hit.heading for hit in hits}


def test_running_again_changes_nothing(library: Path, database: str) -> None:
    run_job(database, library)
    before = rows(database)
    result, run = run_job(database, library)
    assert (result["ingested"], result["unchanged"], result["chunks"], result["embedded"]) == (0, 8, 0, 0)
    assert rows(database) == before
    assert (run.ledger.done, run.ledger.skipped) == (0, 8)


def test_changed_content_replaces_and_keeps_what_is_the_same(library: Path, database: str) -> None:
    run_job(database, library)
    text = (library / "e.txt").read_text()
    (library / "e.txt").write_text(text + "\n\nA new last paragraph about electricity.")
    result, _ = run_job(database, library)
    assert (result["ingested"], result["unchanged"]) == (1, 7)
    assert result["embedded"] <= 2
    assert counts(database)["documents"] == 8
    assert "electricity" in search("new last paragraph about electricity", 1, database=database)[0].text


def test_every_bad_file_is_listed_and_the_rest_is_ingested(library: Path, database: str) -> None:
    bad = library / "bad"
    bad.mkdir()
    expected = {}
    for row, (name, write, code) in BAD.items():
        if row not in ("vanished", "inside a file", "folder", "device", "larger than max_bytes"):
            write(bad / name)
            expected[name] = code
    result, run = run_job(database, library)
    assert {Path(entry["file"]).name: entry["code"] for entry in result["failed"]} == expected
    assert (result["ingested"], len(result["failed"])) == (8, len(expected))
    assert result["documents"] == 8 + len(expected)
    assert (run.ledger.done, run.ledger.failed) == (8, len(expected))
    assert {Path(key).name for key in run.ledger.failed_keys} == set(expected)
    assert all(entry["message"] for entry in result["failed"])
    assert len(run.logged) == len(expected)
    assert counts(database)["documents"] == 8
    store = open_store(database)
    assert store.prune(older_than=-1) == 0  # a bad document leaves nothing behind
    store.close()


def test_all_bad_or_strict_fails(library: Path, database: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"")
    with pytest.raises(
        NothingIngested, match=r"1 of 1 document cannot be used: empty.txt has no content \(empty_file\)"
    ):
        run_job(database, empty)
    with pytest.raises(NothingIngested, match="not_found"):
        run_job(database, tmp_path / "nowhere")
    with pytest.raises(NothingIngested, match="1 of 9"):
        run_job(database, library, empty, strict=True)
    assert counts(database)["documents"] == 0
    result, _ = run_job(database, library, empty)
    assert result["ingested"] == 8


def test_an_empty_folder_is_no_failure(folder: Path, database: str) -> None:
    result, run = run_job(database, folder)
    assert (result["documents"], result["ingested"], result["chunks"]) == (0, 0, 0)
    assert run.message == "Nothing to do: no files found"


def test_warnings_name_their_file(folder: Path, database: str) -> None:
    (folder / "a.pdf").write_bytes("caf\u00e9 au lait".encode("cp1252"))
    result, _ = run_job(database, folder)
    assert [(Path(w["file"]).name, w["code"]) for w in result["warnings"]] == [
        ("a.pdf", "extension_mismatch"),
        ("a.pdf", "encoding_guessed"),
    ]


def test_the_index_says_what_it_was_made_with(library: Path, database: str) -> None:
    run_job(database, library, chunk_tokens=64)
    with pytest.raises(ValueError, match=r"model=hashing:64, not minilm: leave model out, or run reindex"):
        run_job(database, library, model="minilm")
    with pytest.raises(ValueError, match="chunk_tokens=64, not 240"):
        run_job(database, library, chunk_tokens=240)
    result, _ = run_job(database, library, model=None)
    assert (result["unchanged"], result["model"]) == (8, "hashing-64")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model": "gpt"}, "unknown model 'gpt': there are minilm, wordllama"),
        ({"model": "minilm:large"}, "unknown model 'minilm:large'"),
        ({"model": "hashing:many"}, "hashing:256, not 'many'"),
        ({"model": "http:small"}, "needs endpoint=URL or MILEPOST_EMBEDDING_URL"),
        ({"model": "http:small", "endpoint": "localhost:8080"}, "an http or https URL, not 'localhost:8080'"),
        ({"model": "minilm", "model_path": "nowhere.onnx"}, r"no file nowhere.onnx \(model_path\)"),
        ({"chunk_tokens": 0}, "chunk_tokens must be from 16 to 8192, not 0"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"seconds_per_file": float("nan")}, "seconds_per_file"),
        ({"encoding": "klingon"}, "encoding must be one that Python knows.*not 'klingon'"),
        ({"database": "redis://localhost"}, "a file or a postgresql:// URL"),
    ],
)
def test_a_wrong_parameter_is_named_before_anything_is_made(
    wrong: dict[str, Any], said: str, library: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MILEPOST_EMBEDDING_URL", raising=False)
    run = WatchedRun()
    with pytest.raises(ValueError, match=said):
        ingestion(run, [str(library)], **{"database": database, **wrong})
    assert run.stages == []
    assert counts(database)["documents"] == 0


def test_an_index_without_documents_is_made_as_it_is_asked_for_now(
    library: Path, database: str, tmp_path: Path
) -> None:
    with pytest.raises(NothingIngested):
        run_job(database, tmp_path / "nowhere", model="wordllama")
    result, _ = run_job(database, library / "f.md", model="hashing:64", chunk_tokens=64)
    assert (result["model"], result["ingested"]) == ("hashing-64", 1)
    assert counts(database)["documents"] == 1


def test_no_paths_are_no_job(database: str) -> None:
    with pytest.raises(ValueError, match="paths is empty"):
        ingestion(WatchedRun(), [], database=database)


def when(stage: str, done: float) -> Callable[[WatchedRun], None]:
    def watch(run: WatchedRun) -> None:
        if run.stages and run.stages[-1].name == stage and run.stages[-1].done >= done:
            run.cancel()

    return watch


@pytest.mark.parametrize(
    ("stage", "done"), [("Loading", 1), ("Loading", 20000), ("Chunking", 3), ("Embedding", 1), ("Embedding", 60)]
)
def test_a_cancelled_job_leaves_whole_documents_and_is_taken_up(
    library: Path, database: str, tmp_path: Path, stage: str, done: float
) -> None:
    (library / "e2.txt").write_text("\n\n".join(f"Other {n}. {PARAGRAPHS[n % 3]}" for n in range(300)))
    with pytest.raises(JobCancelled):
        run_job(database, library, watch=when(stage, done), chunk_tokens=32)
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


def test_two_jobs_at_once_end_in_the_same_rows(library: Path, database: str, tmp_path: Path) -> None:
    results = at_once(lambda: run_job(database, library)[0])
    assert all(result["ingested"] + result["unchanged"] == 8 for result in results)
    undisturbed = str(tmp_path / "undisturbed.db")
    run_job(undisturbed, library)
    assert rows(database) == rows(undisturbed)


def test_a_switch_of_the_index_in_the_middle_is_followed(library: Path, database: str) -> None:
    run_job(database, library / "f.md")
    switched = False

    def watch(run: WatchedRun) -> None:
        nonlocal switched
        if not switched and run.stages and run.stages[-1].name == "Embedding":
            switched = True
            store = open_store(database)
            other = store.begin_generation("hashing-128", 128, {**settings_for("hashing:128"), "chunk_tokens": 64})
            for document in list(store.documents()):
                store.delete_document(document.document_id)
            assert store.activate(other.number)
            store.close()

    result, run = run_job(database, library, watch=watch, model=None)
    assert (result["model"], result["ingested"] + result["unchanged"]) == ("hashing-128", 8)
    assert counts(database)["documents"] >= 7
    assert run.stages[-1].name == "Persisting"


KILLED = """
import sys
from tests.documents.watched_run import WatchedRun
from milepost.documents.ingestion import ingestion
def watch(run):
    if run.stages and run.stages[-1].name == "Embedding":
        print(int(run.stages[-1].done), flush=True)
ingestion(WatchedRun(watch), [sys.argv[1]], database=sys.argv[2], model="minilm", chunk_tokens=32)
"""


def test_a_killed_job_repeats_at_most_one_commit(folder: Path, database: str, tmp_path: Path) -> None:
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


def test_a_file_that_changes_while_it_is_read_is_read_again(folder: Path, database: str) -> None:
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


def test_an_endpoint_that_fails_for_a_while_costs_time_only(folder: Path, database: str) -> None:
    (folder / "a.txt").write_text("\n\n".join(f"Number {n}. {PARAGRAPHS[n % 3]}" for n in range(50)))
    with serving() as server:
        server.failures = [(429, {"Retry-After": "0.1"}, b""), (500, {}, b"")]
        result, _ = run_job(database, folder, model="http:small", endpoint=server.url)
        assert result["model"] == "http:small"
        store = open_store(database)
        hits = Searcher(store, endpoint=server.url).search("Number 7", 1)
        assert hits[0].score > 0.2
        store.close()


def test_a_locked_store_is_waited_for_and_said(library: Path, database: str) -> None:
    import sqlite3

    run_job(database, library / "f.md")
    locked = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    locked.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.7, lambda: locked.execute("ROLLBACK"))
    timer.start()
    result, run = run_job(database, library)
    timer.join()
    locked.close()
    assert result["ingested"] == 7
    assert any("busy" in message for message in run.messages)


def test_a_job_leaves_no_descriptor_behind(library: Path, database: str) -> None:
    run_job(database, library)
    before = len(os.listdir("/proc/self/fd"))
    (library / "f.md").write_text("changed")
    run_job(database, library)
    (library / "f.md").write_text("changed again")
    with pytest.raises(JobCancelled):
        run_job(database, library, watch=when("Loading", 1))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_cancel_is_heard_while_a_page_hangs(folder: Path, database: str) -> None:
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


def test_documents_can_move_under_a_key(library: Path, database: str, tmp_path: Path) -> None:
    run_job(database, library, key="library")
    moved = tmp_path / "elsewhere"
    shutil.move(library, moved)
    result, _ = run_job(database, moved, key="library")
    assert (result["unchanged"], result["ingested"]) == (8, 0)


def test_searches_are_checked(library: Path, database: str) -> None:
    assert search("anything", database=database) == []
    run_job(database, library)
    with pytest.raises(ValueError, match="empty"):
        search("  ", database=database)
    with pytest.raises(ValueError, match="k must be"):
        search("x", 0, database=database)
    store = open_store(database)
    searcher = Searcher(store)
    assert searcher.search("paraffin", 2) == searcher.search("paraffin", 2)
    store.close()
