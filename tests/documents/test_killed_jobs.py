"""Each document job is killed at random moments, started again by the same command, and stores the same rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.documents.corpora import debian_history, debian_policy
from tests.documents.job_killer import COMMIT, JobKiller
from tests.documents.sample_files import PARAGRAPHS

pytestmark = pytest.mark.timing

SEED = 20240607


def jobs(corpus: Path, model: str, extractor: str) -> list[tuple[str, ...]]:
    """Return the commands of the four jobs in order."""
    return [
        ("ingestion", str(corpus), f"model={model}"),
        ("extraction", f"extractor={extractor}"),
        ("reindex", "chunk_tokens=100"),
        ("clustering", "of=chunks"),
        ("clustering", "of=entities"),
    ]


def run_and_kill(folder: Path, commands: list[tuple[str, ...]], kills: int) -> None:
    """Run the commands undisturbed and killed `kills` times each, and compare the rows after each."""
    calm, killed = JobKiller(folder / "calm"), JobKiller(folder / "killed", SEED)
    try:
        for words in commands:
            expected, seconds = calm.undisturbed(*words)
            job, early = killed.killed_often(*words, kills=kills, seconds=seconds)
            assert job["progress"] == 1.0
            assert killed.rows() == calm.rows(), f"{words} ends in other rows after {kills} kills, {early} too late"
            if counts(job) != counts(expected):
                assert any("passed over" in line for line in killed.log(job["job_id"])), f"{words}: {counts(job)}"
    finally:
        calm.close()
        killed.close()


def counts(job: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a job without times and places."""
    return {name: value for name, value in job["result"].items() if name not in ("seconds", "database")}


@pytest.fixture
def texts(tmp_path: Path) -> Iterator[Path]:
    """Return about a hundred distinct chunks of text."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(12):
        parts = (
            f"Section {number}.{part}. Keeper {chr(65 + part % 26)}orban{number} wrote: {PARAGRAPHS[part % 3]}"
            for part in range(150)
        )
        (folder / f"{number}.txt").write_text("\n\n".join(parts))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(400)
def test_killed_jobs_store_the_rows_of_an_undisturbed_run(texts: Path, tmp_path: Path) -> None:
    run_and_kill(tmp_path, jobs(texts, "hashing:64", "rules"), kills=2)


@pytest.mark.timeout(400)
def test_a_kill_repeats_at_most_one_commit(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(4):
        parts = (f"Section {number}.{part}. {PARAGRAPHS[part % 3]}" for part in range(240))
        (folder / f"{number}.txt").write_text("\n\n".join(parts))
    killer = JobKiller(tmp_path / "killed", SEED)
    words: tuple[str, ...] = ("ingestion", str(folder), "model=minilm", "chunk_tokens=48")
    try:
        for commits in (1, 3):
            killer.killed_at(*words, committed=commits * COMMIT)
            assert killer.uncommitted(words[0]) <= COMMIT
        committed = killer.committed(words[0])
        job, _ = killer.undisturbed(*words)
        assert job["result"]["embedded"] == killer.committed(words[0]) - committed
        assert job["result"]["chunks"] == job["result"]["embedded"] + job["result"]["from_cache"]
        rows = killer.rows()
        job, _ = killer.undisturbed(*words)
        assert (job["result"]["unchanged"], job["result"]["embedded"]) == (4, 0)
        assert killer.rows() == rows
        words = ("extraction", "embed=false")
        killer.killed_at(*words, committed=COMMIT)
        assert killer.uncommitted(words[0]) <= COMMIT
    finally:
        killer.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_kills_of_each_job_on_the_demo_corpus(tmp_path: Path) -> None:
    run_and_kill(tmp_path, jobs(debian_history(tmp_path), "minilm", "auto"), kills=10)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills_of_each_job_on_debian_policy(tmp_path: Path) -> None:
    run_and_kill(tmp_path, jobs(debian_policy(tmp_path), "hashing", "rules"), kills=10)
