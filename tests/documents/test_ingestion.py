"""The ingestion job on real files: results that agree with the store, repeated runs, and bad input."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from milepost.documents.ingestion import NothingIngestedError, ingestion
from milepost.documents.retrieval import Searcher, search
from milepost.documents.store import open_store
from tests.documents.bad_files import BAD
from tests.documents.ingestion_fixture import counts, rows, run_job
from tests.documents.watched_run import WatchedRun


def test_folder_with_every_format_is_ingested(library: Path, database: str) -> None:
    result, run = run_job(database, library)
    assert (result["documents"], result["ingested"], result["failed"], result["skipped"]) == (8, 8, [], 0)
    stored = counts(database)
    assert (stored["documents"], stored["chunks"]) == (result["ingested"], result["chunks"])
    assert stored["vectors"] == result["embedded"]
    assert result["embedded"] + result["from_cache"] == result["chunks"]
    assert set(result["seconds"]) == {"load", "chunk", "embed", "persist"}
    assert (run.ledger.done, run.ledger.failed, run.ledger.skipped) == (8, 0, 0)
    assert run.fraction == 1.0
    assert [(stage.name, stage.done) for stage in (run.stages[0], *run.stages[0].children)] == [
        ("Indexing", sum(path.stat().st_size for path in library.iterdir())),
        ("Vectors", result["chunks"]),
    ]
    assert all(stage.total is None or stage.done == stage.total for stage in run.stages)
    assert run.progress_seen == sorted(run.progress_seen)
    hits = search("keepers burned paraffin", 3, database=database)
    assert any("paraffin" in hit.text for hit in hits)
    assert hits[0].score >= hits[1].score >= hits[2].score


def test_hits_have_pages_and_headings(library: Path, database: str) -> None:
    run_job(database, library)
    hits = search("a last page about paraffin", 50, database=database)
    assert {hit.page for hit in hits if hit.uri.endswith("a.pdf")} == {1}
    assert "Towers" in {hit.heading for hit in hits}


def test_running_again_changes_nothing(library: Path, database: str) -> None:
    run_job(database, library)
    before = rows(database)
    result, run = run_job(database, library)
    assert (result["ingested"], result["unchanged"], result["chunks"], result["embedded"]) == (0, 8, 0, 0)
    assert rows(database) == before
    assert (run.ledger.done, run.ledger.skipped) == (0, 8)


def test_changed_content_reembeds_only_changed_chunks(library: Path, database: str) -> None:
    run_job(database, library)
    text = (library / "e.txt").read_text()
    (library / "e.txt").write_text(text + "\n\nA new last paragraph about electricity.")
    result, _ = run_job(database, library)
    assert (result["ingested"], result["unchanged"]) == (1, 7)
    assert result["embedded"] <= 2
    assert counts(database)["documents"] == 8
    assert "electricity" in search("new last paragraph about electricity", 1, database=database)[0].text


def test_bad_files_are_listed_and_the_rest_ingested(library: Path, database: str) -> None:
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
    assert store.prune(older_than=-1) == 0  # a bad document leaves no rows
    store.close()


def test_job_fails_if_all_files_are_bad_or_strict(library: Path, database: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"")
    with pytest.raises(
        NothingIngestedError, match=r"1 of 1 document cannot be used: empty.txt has no content \(empty_file\)"
    ):
        run_job(database, empty)
    with pytest.raises(NothingIngestedError, match="not_found"):
        run_job(database, tmp_path / "nowhere")
    with pytest.raises(NothingIngestedError, match="1 of 9"):
        run_job(database, library, empty, strict=True)
    assert counts(database)["documents"] == 0
    result, _ = run_job(database, library, empty)
    assert result["ingested"] == 8


def test_empty_folder_succeeds(folder: Path, database: str) -> None:
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


def test_index_settings_are_enforced(library: Path, database: str) -> None:
    run_job(database, library, chunk_tokens=64)
    with pytest.raises(
        ValueError, match="model=minilm differs from the index, which uses hashing:64; omit model, or run reindex"
    ):
        run_job(database, library, model="minilm")
    with pytest.raises(ValueError, match="chunk_tokens=240 differs from the index, which uses 64"):
        run_job(database, library, chunk_tokens=240)
    result, _ = run_job(database, library, model=None)
    assert (result["unchanged"], result["model"]) == (8, "hashing-64")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model": "gpt"}, "unknown model 'gpt'; choose from minilm, wordllama"),
        ({"model": "minilm:large"}, "unknown model 'minilm:large'"),
        ({"model": "hashing:many"}, "hashing:256, not 'many'"),
        ({"model": "http:small"}, "requires endpoint=URL or MILEPOST_EMBEDDING_URL"),
        (
            {"model": "http:small", "endpoint": "localhost:8080"},
            "endpoint must be an http or https URL with a host and without a query, such as",
        ),
        ({"model": "minilm", "model_path": "nowhere.onnx"}, "model_path: nowhere.onnx does not exist"),
        ({"chunk_tokens": 0}, "chunk_tokens must be from 16 to 8192, not 0"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"seconds_per_file": float("nan")}, "seconds_per_file"),
        ({"encoding": "klingon"}, "encoding 'klingon' is unknown"),
        ({"database": "redis://localhost"}, "a file or a postgresql:// URL"),
    ],
)
def test_wrong_parameter_is_refused_before_any_write(
    wrong: dict[str, Any], said: str, library: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MILEPOST_EMBEDDING_URL", raising=False)
    run = WatchedRun()
    with pytest.raises(ValueError, match=said):
        ingestion(run, [str(library)], **{"database": database, **wrong})
    assert run.stages == []
    assert counts(database)["documents"] == 0


def test_empty_index_takes_new_settings(library: Path, database: str, tmp_path: Path) -> None:
    with pytest.raises(NothingIngestedError):
        run_job(database, tmp_path / "nowhere", model="wordllama")
    result, _ = run_job(database, library / "f.md", model="hashing:64", chunk_tokens=64)
    assert (result["model"], result["ingested"]) == ("hashing-64", 1)
    assert counts(database)["documents"] == 1


def test_empty_paths_are_refused(database: str) -> None:
    with pytest.raises(ValueError, match="paths must not be empty"):
        ingestion(WatchedRun(), [], database=database)


def test_moved_documents_keep_their_ids_under_a_key(library: Path, database: str, tmp_path: Path) -> None:
    run_job(database, library, key="library")
    moved = tmp_path / "elsewhere"
    shutil.move(library, moved)
    result, _ = run_job(database, moved, key="library")
    assert (result["unchanged"], result["ingested"]) == (8, 0)


def test_search_arguments_are_validated(library: Path, database: str) -> None:
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
