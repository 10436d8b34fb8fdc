"""The jobs of the upload example, tested with `milepost.testing`: without a server, a worker or a wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from milepost.testing import AsyncJobsUnderTest, async_jobs_under_test
from tests.examples.example_module import load_example


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_example("upload_service")


@pytest.fixture
async def jobs(example: ModuleType) -> AsyncIterator[AsyncJobsUnderTest]:
    with async_jobs_under_test(example.jobs) as jobs:
        yield jobs
        await jobs.close()


@pytest.fixture
async def client(example: ModuleType) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(example.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client


async def test_upload_submits_job_that_counts_words(
    example: ModuleType, jobs: AsyncJobsUnderTest, client: httpx.AsyncClient
) -> None:
    made: dict[str, Any] = (await client.put("/documents/report.txt", content=b"one two\nthree\n")).json()
    job = jobs.assert_submitted(example.count_words, path=str(example.folder / "report.txt"))
    assert (made["job_id"], job.status, job.metadata) == (job.job_id, "pending", {"filename": "report.txt"})
    assert [ended.result for ended in await jobs.drain()] == [{"words": 3, "lines": 2}]


async def test_missing_upload_fails_its_job(example: ModuleType, jobs: AsyncJobsUnderTest, tmp_path: Path) -> None:
    await example.jobs.submit(example.count_words, path=str(tmp_path / "gone.txt"))
    with pytest.raises(FileNotFoundError):
        await jobs.drain()
    assert [job.status for job in jobs.submitted()] == ["failed"]


async def test_delayed_job_runs_when_clock_has_reached_it(
    example: ModuleType, jobs: AsyncJobsUnderTest, tmp_path: Path
) -> None:
    (tmp_path / "late.txt").write_text("a b c d")
    await example.jobs.submit(example.count_words.options(delay="2h", max_attempts=2), path=str(tmp_path / "later.txt"))
    assert await jobs.drain() == []
    jobs.clock.advance("2h")
    assert [(job.status, job.attempt) for job in await jobs.drain()] == [("pending", 1)], "no such file, so far"
    (tmp_path / "late.txt").rename(tmp_path / "later.txt")
    jobs.clock.advance("1h")
    assert [(job.attempt, job.result) for job in await jobs.drain()] == [(2, {"words": 4, "lines": 1})]
