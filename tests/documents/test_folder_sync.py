"""Ingestion with `sync`: the conformance tests on SQLite, and kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documents.ingestion_fixture import rows
from tests.documents.job_killer import JobKiller
from tests.documents.sample_files import PARAGRAPHS
from tests.documents.sync_conformance import SyncConformance, uris


class TestFolderSync(SyncConformance):
    """The suite, on SQLite."""


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.timeout(400)
def test_killed_sync_ends_in_the_rows_of_a_fresh_ingestion(tmp_path: Path) -> None:
    papers = tmp_path / "papers"
    papers.mkdir()
    for number in range(60):
        parts = (f"Section {number}.{part}. {PARAGRAPHS[part % 3]}" for part in range(40))
        (papers / f"{number}.txt").write_text("\n\n".join(parts))
    killed, fresh = JobKiller(tmp_path / "killed", 7), JobKiller(tmp_path / "fresh")
    try:
        killed.undisturbed("ingestion", str(papers), "model=hashing:64")
        for number in range(10):
            (papers / f"{number}.txt").unlink()
            (papers / f"{number + 10}.txt").rename(papers / f"renamed{number}.txt")
            (papers / f"{number + 20}.txt").write_text(f"Changed {number}. {PARAGRAPHS[1]}")
        _, seconds = fresh.undisturbed("ingestion", str(papers), "model=hashing:64")
        job, _ = killed.killed_often(
            "ingestion", str(papers), "model=hashing:64", "sync=true", kills=10, seconds=max(1.0, seconds)
        )
        assert job["result"]["moved"] + job["result"]["removed"] <= 20
        assert rows(str(killed.database)) == rows(str(fresh.database))
        assert len(uris(str(killed.database))) == 50
        published = [(row[0], row[1], row[2]) for row in killed.rows()["words"]]
        assert published == [(row[0], row[1], row[2]) for row in fresh.rows()["words"]]
    finally:
        killed.close()
        fresh.close()
