"""The commands of the document store, on every kind of store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from milepost.documents.jobs import HANDLERS
from tests.cli.stores_fixture import StoreFixture, covers
from tests.documents.watched_run import WatchedRun


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of documents with entities and communities."""
    folder = tmp_path_factory.mktemp("library")
    names = ("Ada Lovelace", "Alan Turing", "Charles Babbage", "Grace Hopper")
    (folder / "a.txt").write_text("\n\n".join(f"{one} wrote to {two}." for one in names for two in names if one < two))
    database = str(folder / "documents.db")
    HANDLERS["ingestion"](WatchedRun(), [str(folder / "a.txt")], database=database, model="hashing:64", chunk_tokens=16)
    HANDLERS["extraction"](WatchedRun(), database=database, extractor="rules")
    HANDLERS["clustering"](WatchedRun(), database=database, of="chunks")
    return Path(database)


@covers("search", "entities", "neighbours", "communities", "draw")
def test_document_commands_use_selected_store(where: StoreFixture, library: Path) -> None:
    shutil.copy(library, where.documents)
    assert "a.txt" in where.call("search", "Ada Lovelace", "-k", "1")
    assert "Ada Lovelace" in [entity["name"] for entity in where.rows("entities", "lovelace")]
    assert where.rows("neighbours", "Ada", "Lovelace")[0]["hops"] == 1
    assert where.rows("communities", "--of", "chunks")[0]["size"] > 0
    assert "milepost run clustering of=entities" in where.call("communities")
    named: tuple[str, ...] = ()
    if where.is_server:
        for command in (("entities",), ("neighbours", "Ada"), ("communities",)):
            assert "--limit: a server returns at most 1,000 rows; pass --database" in where.error_line(
                *command, "-n", "1001", code=2
            )
        assert "queries of at most 2,000 characters" in where.error_line("search", "a" * 2001, code=2)
        for command in (("search",), ("ls",)):
            assert "arguments must be valid UTF-8" in where.error_line(*command, "\udcff", code=2)
        assert "--database" in where.error_line("draw", "graph.svg", code=2)
        named = ("--database", str(library))
    where.call("draw", "graph.svg", *named)
    assert (where.folder / "graph.svg").read_text().startswith("<svg ")


@covers("documents", "documents ls", "documents show", "documents measure", "documents rm")
def test_documents_are_listed_measured_and_deleted(where: StoreFixture, library: Path) -> None:
    shutil.copy(library, where.documents)
    (where.folder / "questions.csv").write_text("question,answer\nTo whom did Ada write?,Ada Lovelace\n")
    assert "Manage ingested documents" in where.call("documents", "--help")
    [row] = where.rows("documents", "ls")
    assert row["uri"].endswith("a.txt")
    assert "sha256:" in where.call("documents", "show", row["document_id"])
    named = ("--database", str(where.documents)) if where.is_server else ()
    measured = where.rows("documents", "measure", "questions.csv", "--mode", "words", *named)
    assert [(one["mode"], one["hit_at_1"]) for one in measured] == [("words", 1.0)]
    assert "Deleted 1 document" in where.call("documents", "rm", row["document_id"], "--yes")
    assert where.rows("documents", "ls") == []
    assert "milepost documents ls" in where.error_line("documents", "show", row["document_id"], code=1)
