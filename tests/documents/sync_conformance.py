"""Conformance of document stores: ingestion with `sync` removes what is gone and moves what was renamed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from milepost.core.errors import InvalidInputError
from milepost.documents.extraction import extraction
from milepost.documents.ingestion import NothingIngestedError, ingestion
from milepost.documents.retrieval import delete_document, list_documents, search
from milepost.documents.store import open_store
from tests.documents.ingestion_fixture import FAST, counts, rows, run_job
from tests.documents.sample_files import PARAGRAPHS
from tests.documents.watched_run import WatchedRun


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(f"{text}. {PARAGRAPHS[0]}")
    return folder / name


def uris(database: str) -> list[str]:
    store = open_store(database)
    try:
        return sorted(Path(document.uri).name for document in store.documents())
    finally:
        store.close()


class SyncConformance:
    @pytest.fixture
    def papers(self, folder: Path, database: str) -> Path:
        """Return a folder of ten ingested documents."""
        for number in range(10):
            write(folder, f"{number}.txt", f"Unique{number} Document{number}")
        run_job(database, folder)
        return folder

    def test_gone_are_removed_and_renamed_are_moved(self, papers: Path, database: str, tmp_path: Path) -> None:
        extraction(WatchedRun(), database=database, extractor="rules")
        before = counts(database)
        (papers / "0.txt").unlink()
        (papers / "1.txt").rename(papers / "renamed.txt")
        (papers / "towers").mkdir()
        (papers / "2.txt").rename(papers / "towers" / "2.txt")
        write(papers, "3.txt", "Changed3")
        write(papers, "new.txt", "Added")
        result, _ = run_job(database, papers, sync=True)
        assert (result["removed"], result["moved"], result["ingested"], result["unchanged"]) == (1, 2, 4, 6)
        assert result["embedded"] == 2  # of 3.txt and new.txt
        run_job(str(tmp_path / "fresh.db"), papers)
        assert rows(database) == rows(str(tmp_path / "fresh.db"))
        assert search("Unique0", mode="words", database=database) == []
        assert [Path(hit.uri).name for hit in search("Unique1", mode="words", database=database)] == ["renamed.txt"]
        store = open_store(database)
        assert store.entities(text="Unique0 Document0") == []
        assert store.entities(text="Unique1 Document1")[0].chunks == 1
        assert store.list_documents("renamed")[0].root == papers.as_uri()
        store.close()
        extracted = extraction(WatchedRun(), database=database, extractor="rules")
        assert extracted["extracted"] == 2  # the moved ones keep what was extracted
        assert counts(database)["documents"] == before["documents"]

    def test_document_deleted_while_it_is_loaded_keeps_its_origins(
        self, papers: Path, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It came back without owner, folder and metadata, and a sync never removed it."""
        monkeypatch.setenv("MILEPOST_DOCUMENTS_OWNER_LABEL", "tenant")
        settings = {"database": database, **FAST}
        ingestion(WatchedRun(labels={"tenant": "a"}), [str(papers)], **settings)

        def delete(run: WatchedRun) -> None:
            if run.messages[-1:] == ["Loading 0.txt"]:
                for uri in ((papers / "0.txt").as_uri(), (papers / "1.txt").as_uri()):
                    delete_document(uri, owner="a", database=database)

        write(papers, "0.txt", "Changed0")
        again = WatchedRun(delete, labels={"tenant": "a"})
        assert ingestion(again, [str(papers)], metadata={"year": 1843}, **settings)["ingested"] == 2
        mine = list_documents(owner="a", database=database)
        assert [(Path(one.uri).name, one.root, one.metadata["year"]) for one in mine] == [
            (f"{number}.txt", papers.as_uri(), "1843") for number in range(10)
        ]
        (papers / "0.txt").unlink()
        assert ingestion(WatchedRun(labels={"tenant": "a"}), [str(papers)], sync=True, **settings)["removed"] == 1

    def test_file_that_never_loaded_leaves_no_metadata(self, papers: Path, database: str) -> None:
        (papers / "bad.pdf").write_bytes(b"%PDF-1.4 damaged")
        result, _ = run_job(database, papers, metadata={"team": "engines"})
        assert len(result["failed"]) == 1
        write(papers, "bad.pdf", "Repaired")
        run_job(database, papers, metadata={"year": 1843})
        [repaired] = list_documents("bad.pdf", database=database)
        assert repaired.metadata == {"year": "1843"}

    def test_document_of_a_concurrent_job_has_the_metadata_of_both(self, papers: Path, database: str) -> None:
        write(papers, "new.txt", "Added")

        def overtake(run: WatchedRun) -> None:
            if run.messages[-1:] == ["Loading 0.txt"]:
                run.watch = None
                run_job(database, papers, metadata={"team": "engines"})

        result, _ = run_job(database, papers, watch=overtake, metadata={"year": 1843})
        assert result["ingested"] == 0
        [new] = list_documents("new.txt", database=database)
        assert new.metadata == {"team": "engines", "year": "1843"}

    def test_without_sync_nothing_is_removed(self, papers: Path, database: str) -> None:
        (papers / "0.txt").unlink()
        result, _ = run_job(database, papers)
        assert "removed" not in result
        assert len(uris(database)) == 10

    def test_more_than_half_is_removed_only_with_force(self, papers: Path, database: str) -> None:
        for number in range(6):
            (papers / f"{number}.txt").unlink()
        with pytest.raises(InvalidInputError, match=r"would remove 6 of 10 documents of file:.*force=true"):
            run_job(database, papers, sync=True)
        assert len(uris(database)) == 10
        result, _ = run_job(database, papers, sync=True, force=True)
        assert result["removed"] == 6
        assert uris(database) == [f"{number}.txt" for number in range(6, 10)]

    def test_empty_folder_of_an_unmounted_disk_removes_nothing(self, papers: Path, database: str) -> None:
        for file in papers.iterdir():
            file.unlink()
        with pytest.raises(InvalidInputError, match="would remove 10 of 10"):
            run_job(database, papers, sync=True)
        assert len(uris(database)) == 10

    def test_missing_folder_removes_nothing(self, papers: Path, database: str, tmp_path: Path) -> None:
        other = write(tmp_path / "other", "a.txt", "Other").parent
        run_job(database, other)
        (papers / "0.txt").unlink()
        shutil.rmtree(other)
        result, _ = run_job(database, papers, other, sync=True, force=True)
        assert (result["removed"], len(uris(database))) == (0, 11)
        assert {"file": str(other), "code": "sync_skipped"} in result["warnings"]
        with pytest.raises(NothingIngestedError):
            run_job(database, other, sync=True, force=True)
        assert len(uris(database)) == 11

    def test_other_folders_and_keys_are_left_alone(self, papers: Path, database: str, tmp_path: Path) -> None:
        other = write(tmp_path / "documents-2", "a.txt", "Other").parent
        run_job(database, other)
        run_job(database, papers, key="library")
        (papers / "0.txt").unlink()
        (other / "a.txt").unlink()
        result, _ = run_job(database, papers, sync=True)
        assert result["removed"] == 1
        assert len(uris(database)) == 20
        result, _ = run_job(database, papers, key="library", sync=True)
        assert (result["removed"], len(uris(database))) == (1, 19)

    def test_sync_requires_a_folder(self, papers: Path, database: str) -> None:
        with pytest.raises(InvalidInputError, match="requires a folder"):
            run_job(database, papers / "1.txt", sync=True)
