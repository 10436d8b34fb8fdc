"""Ingestion publishes as it continues, under limits of time and size, with messages that are true."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from milepost.core.errors import JobCancelled
from milepost.documents.chunking import chunk_text
from milepost.documents.embed.models import count_tokens
from milepost.documents.ingestion import NothingIngestedError
from milepost.documents.retrieval import search
from tests.documents.ingestion_fixture import counts, rows, run_job
from tests.documents.sample_files import PARAGRAPHS
from tests.documents.watched_run import WatchedRun


def write_documents(folder: Path, number: int = 30) -> None:
    for n in range(number):
        (folder / f"{n:03}.txt").write_text(f"Document {n}.\n\n" + "\n\n".join(PARAGRAPHS * 4))


def test_documents_are_found_before_all_are_loaded(folder: Path, database: str, tmp_path: Path) -> None:
    """Nothing was published before the last file was loaded and chunked."""
    write_documents(folder)
    found: list[int] = []

    def watch(run: WatchedRun) -> None:
        if run.messages and run.messages[-1] == "Loading 029.txt":
            found.append(counts(database)["documents"])
            assert search("lighthouse", 1, database=database)
            run.cancel()

    with pytest.raises(JobCancelled):
        run_job(database, folder, watch=watch, chunk_tokens=32)
    assert 20 < found[0] < 30
    result, _ = run_job(database, folder, chunk_tokens=32)
    assert result["unchanged"] == found[0]
    undisturbed = str(tmp_path / "undisturbed.db")
    run_job(undisturbed, folder, chunk_tokens=32)
    assert rows(database) == rows(undisturbed)


def test_strict_job_publishes_nothing_beside_a_failure(folder: Path, database: str) -> None:
    write_documents(folder)
    (folder / "zzz.txt").write_bytes(b"")
    with pytest.raises(NothingIngestedError, match="1 of 31"):
        run_job(database, folder, strict=True)
    assert counts(database)["documents"] == 0
    (folder / "zzz.txt").unlink()
    assert run_job(database, folder, strict=True)[0]["ingested"] == 30


def test_message_names_what_the_job_does(folder: Path, database: str) -> None:
    """It said "Loading" and the name of the last file until the end."""
    write_documents(folder)
    wrong: list[str] = []

    def watch(run: WatchedRun) -> None:
        message = run.messages[-1] if run.messages else ""
        embedding = run.stages[0].children[0] if run.stages and run.stages[0].children else None
        if embedding is not None and embedding.done < (embedding.total or 0) and message.startswith("Loading"):
            wrong.append(message)

    _, run = run_job(database, folder, watch=watch, chunk_tokens=32)
    assert [message for message in wrong if wrong.count(message) > 10] == []
    phases = [message.split(" ")[0] for message in run.messages]
    assert phases[:2] == ["Loading", "Chunking"]
    assert phases.count("Embedding") > 3
    assert "Embedding 000.txt and 5 other documents" in run.messages
    assert run.messages[-1].startswith("Ingested 30 documents")
    assert run.progress_seen == sorted(run.progress_seen)


@pytest.mark.parametrize(
    "text", ["<" * 300_000, "a" * 2_000_000, "\u4eca" * 100_000, "\u1100" * 50_000, "x\n" + "ab+/" * 40_000]
)
def test_text_without_spaces_is_cut_quickly(text: str) -> None:
    """The splitter took 10 to 40 seconds a megabyte to find no place to cut."""
    before = time.thread_time()
    chunks = chunk_text(text, format="html", tokens=64)
    assert time.thread_time() - before < 20, "a limit for a hang, not a measurement"
    assert "".join(chunk.text for chunk in chunks).replace("\n", "") == text.replace("\n", "")
    assert max(count_tokens([chunk.text for chunk in chunks])) <= 64


def test_document_that_takes_too_long_to_chunk_fails_alone(
    folder: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_documents(folder, 3)
    (folder / "long.txt").write_text("word " * 100_000)
    clock = 0.0

    def slow_clock() -> float:
        nonlocal clock
        clock += 1
        return clock

    monkeypatch.setattr("milepost.documents.pipeline.time.thread_time", slow_clock)
    result, _ = run_job(database, folder, seconds_per_file=100)
    assert [bad["code"] for bad in result["failed"]] == ["chunk_timeout"]
    assert result["ingested"] == 3
    assert counts(database)["chunks"] == result["chunks"], "no rows are left of it"
