"""Numbers of the whole: exact counts whatever their number, close percentiles, and no job read for those who see all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager
from milepost.core.encoding import micros
from milepost.core.job import Job, JobStatus
from milepost.stores.protocol import FeedEvents, Select
from milepost.web import ends
from milepost.web.tallies import SAMPLE, Tallies
from tests.web.conftest import client_of

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def ended(at: datetime, ran: float, status: str = "completed", job_type: str = "x", waited: float = 1.0) -> Job:
    """A job as it is after its end."""
    started = at - timedelta(seconds=ran)
    return Job(
        job_id="j", job_type=job_type, status=JobStatus(status), progress=1.0, message="",
        created_at=started - timedelta(seconds=waited), started_at=started, completed_at=at,
    )  # fmt: skip


def test_counts_are_exact_and_percentiles_close_however_many() -> None:
    tallies = Tallies()
    many = 20_000
    for number in range(many):
        at = NOW - timedelta(seconds=number * 3000 / many)
        tallies.add(ended(at, ran=(number * 7919) % 1000 / 10, status="failed" if number % 4 == 0 else "completed"))
    shown = tallies.overview(micros(NOW, "now"), 3600, 60)
    assert len(shown["steps"]) == 60
    assert sum(step["completed"] for step in shown["steps"]) == many * 3 // 4
    assert sum(step["failed"] for step in shown["steps"]) == many // 4
    assert shown["duration"]["count"] == shown["wait"]["count"] == many
    assert 40 < shown["duration"]["p50"] < 60, "uniform from 0 to 100 s; thousands of samples"
    assert 90 < shown["duration"]["p95"] < 99
    kept = sum(len(t.ran.kept) for ring in tallies._rings for bucket in ring.buckets.values() for t in bucket.values())
    assert kept <= SAMPLE * sum(len(ring.buckets) for ring in tallies._rings)


def test_few_jobs_are_measured_exactly() -> None:
    tallies = Tallies()
    for seconds in range(1, 11):
        tallies.add(ended(NOW - timedelta(seconds=30), ran=seconds, waited=seconds / 10))
    tallies.add(ended(NOW, ran=500, status="cancelled"))
    tallies.add(Job("open", "x", JobStatus.RUNNING, 0.5, "", NOW))
    shown = tallies.overview(micros(NOW, "now"), 600, 60)
    assert shown["duration"] == {"p50": 6.0, "p95": 10.0, "count": 10}
    assert (shown["wait"]["p50"], shown["wait"]["count"]) == (0.6, 11)
    assert shown["types"][0]["cancelled"] == 1


@pytest.mark.parametrize(("window", "step", "steps"), [(3600, 60, 60), (86_400, 900, 96), (7 * 86_400, 7200, 84),
                                                       (600, 1, 60), (360 * 86_400, 86_400, 360)])  # fmt: skip
def test_each_window_has_its_steps(window: float, step: float, steps: int) -> None:
    tallies = Tallies()
    inside, outside = NOW - timedelta(seconds=window * 0.9), NOW - timedelta(seconds=window * 1.1)
    for at in (inside, outside):
        tallies.add(ended(at, ran=1))
    shown = tallies.overview(micros(NOW, "now"), window, step)
    assert len(shown["steps"]) == steps
    assert sum(one["completed"] for one in shown["steps"]) == 1
    assert shown["step"] == max(step, 10)


async def test_what_is_old_leaves_the_memory() -> None:
    tallies = Tallies()
    for day in range(30):
        for minute in range(0, 1440, 5):
            tallies.add(ended(NOW + timedelta(days=day, minutes=minute), ran=1))
    assert [len(ring.buckets) for ring in tallies._rings] <= [721, 8 * 288 + 1, 31]


async def finish(manager: AsyncJobManager, status: str = "completed", **options: Any) -> None:
    """A job that its caller drives to its end."""
    job = await manager.create_job(job_type="measured", **options)
    await manager.update_job(job.job_id, "running")
    await manager.update_job(job.job_id, status)


async def completed(client: httpx.AsyncClient, number: int, query: str = "") -> dict[str, Any]:
    """The numbers once they know of so many completed jobs; the feed tells of a new one a moment later."""
    async with asyncio.timeout(20):
        for minutes in range(10, 1000):  # another window each time, past what is remembered for two seconds
            shown: dict[str, Any] = (await client.get(f"/api/stats?window={minutes}m&step={minutes}m{query}")).json()
            if sum(step["completed"] for step in shown["steps"]) == number:
                return shown
            await asyncio.sleep(0.02)
    raise AssertionError(shown)


async def test_no_job_is_read_for_one_who_sees_all(manager: AsyncJobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    for status in ("completed", "completed", "failed"):
        await finish(manager, status)
    async with client_of(manager) as client:
        assert (await completed(client, 2))["complete"]
        selects: list[Select] = []
        select = manager.store.select

        async def counted(wanted: Select, *rest: Any) -> list[Job]:
            selects.append(wanted)
            return await select(wanted, *rest)

        monkeypatch.setattr(manager.store, "select", counted)
        await finish(manager)
        shown = await completed(client, 3)
        assert selects == []
        assert shown["counts"] == {"measured": {"completed": 3, "failed": 1}}
        assert (shown["duration"]["count"], shown["complete"]) == (4, True)


async def test_what_was_not_read_is_said(manager: AsyncJobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "READ_AT_FIRST", 2)
    monkeypatch.setattr(ends, "BATCH", 1)
    for _ in range(5):
        await finish(manager)
    async with client_of(manager) as client:
        shown = await completed(client, 2)
        assert not shown["complete"]
        assert shown["counts"] == {"measured": {"completed": 5}}, "counts are exact all the same"
        narrow = (await client.get("/api/stats?q=type:measured")).json()
        assert narrow["duration"]["count"] == 5
        assert narrow["complete"]


async def test_ends_that_the_feed_has_lost_are_said(memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = memory.store.feed

    async def lossy(position: str | None, **options: Any) -> FeedEvents:
        news = await feed(position, **options)
        return news._replace(lost=bool(news.events))

    monkeypatch.setattr(memory.store, "feed", lossy)
    async with client_of(memory) as client:
        assert (await completed(client, 0))["complete"]
        await finish(memory)
        assert not (await completed(client, 1))["complete"]
