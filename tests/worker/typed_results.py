"""A program whose types mypy and pyright infer: `assert_type` is checked by both, and each result is that of its run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, TypedDict, assert_type

from milepost import AsyncClient, AsyncJobManager, AsyncJobs, Client, Job, JobManager, Jobs, Run

jobs = Jobs("memory://")


class Chunks(TypedDict):
    """A result that is JSON as it is."""

    index: str
    chunks: list[int]


@dataclass
class Report:
    """A result that becomes an object."""

    mean: float


@jobs.job
def count(run: Run, text: str) -> int:
    return len(text)


@jobs.job("reindex", max_attempts=3)
async def reindex(run: Run, index: str) -> Chunks:
    return {"index": index, "chunks": [1, 2]}


@jobs.job
async def words(run: Run, text: str) -> list[str]:
    return text.split()


@jobs.job
def nothing(run: Run) -> None:
    run.log("nothing")


@jobs.job
def summary(run: Run, values: dict[str, Any]) -> dict[str, Any]:
    return values


@jobs.job
def report(run: Run) -> Report:
    return Report(1.5)


@jobs.job
async def reports(run: Run) -> list[Report]:
    return [Report(1.5)]


@jobs.job
def pair(run: Run) -> tuple[int, int]:
    return 1, 2


@jobs.job
def unknown(run: Run) -> Any:
    return 1


def blocking() -> list[object]:
    job = jobs.submit(count, text="four")
    assert_type(job, Job[int])
    assert_type(jobs.wait(job, timeout="1m"), Job[int])
    assert_type(jobs.result(job), int)
    assert_type(jobs.wait(job).result, int)
    assert_type(jobs.submit(reindex, "docs"), Job[Chunks])
    assert_type(jobs.submit(reindex.options(priority=5).options(labels={"owner": "ana"}), index="docs"), Job[Chunks])
    assert_type(jobs.submit(words, "a b"), Job[list[str]])
    assert_type(jobs.submit(nothing), Job[None])
    return [jobs.result(job), jobs.result(jobs.wait(jobs.submit(words, "a b")))]


async def asynchronous() -> list[object]:
    others = AsyncJobs("memory://", handlers=jobs.handlers)
    job = await others.submit(reindex, index="docs")
    assert_type(job, Job[Chunks])
    assert_type(await others.submit(count.options(priority=1), "four"), Job[int])
    job = await others.wait(job, timeout="1m")
    assert_type(job, Job[Chunks])
    assert_type(job.result, Chunks)
    assert_type(await others.result(job), Chunks)
    found = [job.result["chunks"][0], await others.result(job)]
    await others.close()
    return found


def converted() -> list[object]:
    """A result that JSON changes has no type of the handler: `jobs.result(...).mean` would fail."""
    assert_type(jobs.submit(report), Job)
    assert_type(jobs.submit(reports), Job)
    assert_type(jobs.submit(pair), Job)
    assert_type(jobs.submit(unknown), Job)
    assert_type(jobs.wait(jobs.submit(summary, {"a": 1})).result["a"], Any)
    return [jobs.result(jobs.wait(jobs.submit(each))) for each in (report, reports, pair)]


def bare(job: Job) -> str:
    """A Job without a type is that of any result."""
    return str(job.result["chunks"] if job.result else job.job_id)


def by_name(manager: JobManager, client: Client, job: Job[int]) -> None:
    assert_type(jobs.submit("count", {"text": "four"}), Job)
    assert_type(jobs.result("an-id"), Any)
    assert_type(jobs.wait("an-id"), Job)
    assert_type(manager.wait(job), Job[int])
    assert_type(manager.result(job), int)
    assert_type(client.wait(job), Job[int])
    assert_type(client.result(job), int)
    assert_type(client.submit("count"), Job)
    bare(job)
    bare(client.wait("an-id"))


async def by_name_async(manager: AsyncJobManager, client: AsyncClient, job: Job[int]) -> None:
    assert_type(await manager.wait(job), Job[int])
    assert_type(await manager.result(job), int)
    assert_type(await client.wait(job), Job[int])
    assert_type(await client.result(job), int)


if __name__ == "__main__":
    found: Job[int] = jobs.submit(count, text="")
    print(blocking(), asyncio.run(asynchronous()), converted(), bare(found) == found.job_id, Job[int])
    jobs.close()
