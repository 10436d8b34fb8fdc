"""Readers of a feed that delivers events again and in another order between jobs: each shows an event once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager, JobManager
from milepost.cli.commands.worker import WorkerMonitor
from milepost.core.events import Event, SeenEvents, StreamPosition
from milepost.core.job import Job
from milepost.manager.feed_follower import FeedFollower
from milepost.stores.protocol import FeedEvents
from milepost.web.live.hub import Hub
from milepost.web.live.job_stream import JobStream
from milepost.web.metrics import FinishedJobs
from milepost.web.webhooks import registry
from tests.waiting import PATIENCE, until
from tests.web.test_webhooks import sender_to

pytestmark = pytest.mark.timing


@pytest.fixture(autouse=True)
def repeating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every store deliver new events in another order between jobs, and the last 50 again after them."""
    from milepost.stores.memory.store import MemoryStore
    from milepost.stores.redis.store import RedisStore
    from milepost.stores.sqlite.store import SQLiteStore

    for kind in (MemoryStore, SQLiteStore, RedisStore):
        monkeypatch.setattr(kind, "feed", repeated(kind.feed))


def repeated(feed: Any) -> Any:
    delivered: list[Event] = []

    async def wrapper(self: object, position: str | None, **options: Any) -> FeedEvents:
        news: FeedEvents = await feed(self, position, **options)
        ids = list(dict.fromkeys(event.job_id for event in news.events))
        mixed = [event for job_id in reversed(ids) for event in news.events if event.job_id == job_id]
        again = delivered[-50:] if news.events else []
        delivered.extend(mixed)
        return news._replace(events=[*mixed, *again])

    return wrapper


async def worked(manager: AsyncJobManager) -> Job:
    """Create a job with progress up to its end, and another one beside it."""
    job, other = await manager.create_job(), await manager.create_job()
    for progress in (0.2, 0.4, 0.6):
        for one in (job, other):
            await manager.update_job(one.job_id, "running", progress=progress)
    for one in (other, job):
        await manager.update_job(one.job_id, "completed", result=1)
    return job


async def test_watch_gives_each_event_once(manager: AsyncJobManager) -> None:
    job = await manager.create_job()

    async def versions() -> list[int]:
        return [event.version async for event in manager.watch(job.job_id, 0)]

    watching = asyncio.create_task(versions())
    for progress in (0.2, 0.4):
        await worked(manager)
        await manager.update_job(job.job_id, "running", progress=progress)
    await manager.update_job(job.job_id, "completed")
    async with asyncio.timeout(PATIENCE):
        assert await watching == [1, 2, 3, 4]


async def test_job_stream_sends_each_event_once(manager: AsyncJobManager) -> None:
    job = await manager.create_job()
    sent: list[bytes] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    hub = Hub(FeedFollower(lambda: manager.store))
    stream = await JobStream.start(hub, job.job_id, StreamPosition(0), reconnect=True)
    reading = asyncio.create_task(stream({"type": "http"}, receive, send))
    for progress in (0.2, 0.4, 0.6):
        await worked(manager)
        await manager.update_job(job.job_id, "running", progress=progress)
        await asyncio.sleep(0)
    await manager.update_job(job.job_id, "completed")
    async with asyncio.timeout(PATIENCE):
        await reading
    lines = b"".join(sent).decode().splitlines()
    versions = [int(line[4:].partition("-")[0]) for line in lines if line.startswith("id: ")]
    assert versions == sorted(set(versions))
    assert versions[-1] == 5


async def test_finished_jobs_are_counted_once(manager: AsyncJobManager) -> None:
    seen: Counter[str] = Counter()
    finished = FinishedJobs(FeedFollower(lambda: manager.store))
    finished.listeners.append(lambda event, job: seen.update([job.job_id]))
    await finished.begin()
    async with asyncio.timeout(PATIENCE):
        job = await worked(manager)
        while job.job_id not in seen:
            await asyncio.sleep(0.01)
        await worked(manager)
        await asyncio.sleep(0.05)
    finished.stop()
    assert set(seen.values()) == {1}


async def test_webhook_is_sent_once_for_each_end(manager: AsyncJobManager) -> None:
    got: Counter[str] = Counter()

    def answer(request: httpx.Request) -> httpx.Response:
        got[request.headers["webhook-id"]] += 1
        return httpx.Response(200)

    hook = await registry.create(manager.store, "https://hooks.example.org/in")
    sender = sender_to(manager, answer)
    await sender.read_feed([hook])
    for _ in range(3):
        await worked(manager)
        await sender.read_feed([hook])
        await sender.send_due(hook)
    assert set(got.values()) == {1}
    assert len(got) == 6


def test_worker_monitor_counts_each_run_once() -> None:
    manager = JobManager("memory://")
    monitor = WorkerMonitor(manager)
    monitor.start()
    for _ in range(5):
        with manager.track("work"), manager.track("other"):
            pass
    until(lambda: sum(monitor.ended.values()) >= 10)
    with manager.track("last"):
        pass
    monitor.stop()
    assert (monitor.ended, monitor.running) == ({"completed": 11}, {})
    manager.close()


def test_seen_events_tells_a_reused_id_apart() -> None:
    seen = SeenEvents()
    first, again = (Event.stored("a", 1, "created", at, {}) for at in (1, 2))
    assert [seen.is_new(event) for event in (first, first, again, again)] == [True, False, True, False]


def test_seen_events_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SeenEvents, "LIMIT", 3)
    seen = SeenEvents()
    events = [Event.stored("a", version, "progress", 1, {}) for version in range(5)]
    assert all(seen.is_new(event) for event in events)
    assert [seen.is_new(event) for event in events[2:]] == [False, False, False]
    assert seen.is_new(events[0])
