"""One follower of the event feed in a server process: streams, lists, metrics and webhooks learn the same from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from milepost import AsyncJobManager
from milepost.core.errors import StoreUnavailableError
from milepost.manager.feed_follower import MAX_QUEUED_EVENTS, FeedFollower, FeedNews, FeedQueue
from milepost.stores.protocol import FeedEvents, Store
from milepost.stores.redis.store import RedisStore
from milepost.web import auth, create_app
from milepost.web.context import WebContext
from milepost.web.http.list_params import ListParams
from milepost.web.live.job_stream import JobStream
from milepost.web.live.list_stream import open_list_stream
from milepost.web.security.principals import ANYONE
from milepost.web.webhooks import registry
from milepost.web.webhooks.delivery import CURSOR
from tests.redis_server import RedisServer
from tests.waiting import PATIENCE
from tests.web.conftest import ON_POSTGRES, STORES, store_address

pytestmark = pytest.mark.timing


class CountedReads:
    """Counts the reads of a store's feed that are waiting, and how many waited at most at the same time."""

    def __init__(self, store: Store, patch: pytest.MonkeyPatch) -> None:
        self.waiting = self.most = 0
        feed = store.feed

        async def counted(position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> FeedEvents:
            if not timeout:
                return await feed(position, limit=limit)
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            try:
                return await feed(position, limit=limit, timeout=timeout)
            finally:
                self.waiting -= 1

        patch.setattr(store, "feed", counted)


class Client:
    """A client of a stream, and what it received."""

    def __init__(self, stream: Any) -> None:
        self.text = ""
        self._task = asyncio.create_task(stream({"type": "http"}, self._receive, self._send))

    async def _receive(self) -> Any:
        await asyncio.Event().wait()

    async def _send(self, message: Any) -> None:
        self.text += message.get("body", b"").decode()

    async def wait_for(self, text: str) -> None:
        """Wait until a text was received, and forget what came before."""
        async with asyncio.timeout(PATIENCE):
            while text not in self.text:
                await asyncio.sleep(0.01)
        self.text = ""

    async def leave(self) -> None:
        """Close the connection."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture(autouse=True)
def frequent_looks_for_webhooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server find soon the webhook that `serving` creates without the API, which would tell it."""
    monkeypatch.setattr("milepost.web.webhooks.delivery.IDLE_INTERVAL", 0.05)


@asynccontextmanager
async def serving(manager: AsyncJobManager) -> AsyncIterator[tuple[WebContext, list[Client], str]]:
    """Run a server with a stream of a job and of a list, metrics and a webhook. Yield it, the clients and the job's id."""
    job = await manager.create_job()
    app = create_app(manager, auth=auth.none())
    context: WebContext = app.state.milepost
    async with app.router.lifespan_context(app):
        await registry.create(manager.store, "https://hooks.example.org/in", ("completed",))
        hub = context.hub
        clients = [
            Client(await JobStream.start(hub, job.job_id, None)),
            Client(await open_list_stream(hub, ListParams(), ANYONE, None)),
        ]
        await context.ends.begin()
        yield context, clients, job.job_id
        await asyncio.gather(*(client.leave() for client in clients))


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(params=[*STORES, ON_POSTGRES])
def manager(request: pytest.FixtureRequest) -> AsyncJobManager:
    """Return a manager on each kind of store."""
    url, options = store_address(request.param, request)
    return AsyncJobManager(url, options=options)


async def test_server_follows_the_feed_once(manager: AsyncJobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = CountedReads(manager.store, monkeypatch)
    ends: list[str] = []
    async with serving(manager) as (context, (stream, jobs), job_id):
        context.ends.listeners.append(lambda event, job: ends.append(job.job_id))
        await until(lambda: len(context.feed._subscribers) == 4)  # the webhooks have the lead
        await manager.update_job(job_id, "running", message="half")
        await stream.wait_for("half")
        await jobs.wait_for("half")
        await manager.update_job(job_id, "completed")
        await stream.wait_for("event: end")
        await jobs.wait_for("completed")
        await until(lambda: ends == [job_id])
        async with asyncio.timeout(PATIENCE):
            while not await registry.deliveries(manager.store):
                await asyncio.sleep(0.01)
        await until(lambda: reads.waiting == 1)
        assert reads.most == 1
    await until(lambda: reads.waiting == 0)
    await manager.close()


async def test_redis_has_one_waiting_reader(start_redis: Callable[..., RedisServer]) -> None:
    redis = start_redis()
    manager = AsyncJobManager(redis.url)

    def readers() -> int:
        return sum(client["cmd"] == "xread" and "b" in client["flags"] for client in watching.client_list())

    with redis.client() as watching:
        async with serving(manager) as (context, _, job_id):
            await until(lambda: len(context.feed._subscribers) == 4)
            await manager.update_job(job_id, "running")
            await until(lambda: readers() == 1)
        assert context.feed._subscribers == []
        await manager.close()
        await until(lambda: readers() == 0)


async def test_idle_server_does_not_read_the_feed(manager: AsyncJobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = CountedReads(manager.store, monkeypatch)
    app = create_app(manager, auth=auth.none())
    async with app.router.lifespan_context(app):
        await manager.create_job()
        await asyncio.sleep(0.1)
        assert reads.most == 0
    await manager.close()


async def test_outage_reaches_every_subscriber(
    start_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("milepost.manager.feed_follower.FEED_TIMEOUT", 0.2)
    monkeypatch.setattr("milepost.manager.feed_follower.RETRY_DELAY", 0.05)
    monkeypatch.setattr("milepost.stores.redis.client.REPLY_SECONDS", 1.0)
    redis = start_redis(appendonly="always")
    manager = AsyncJobManager(RedisStore(redis.url, blocking=False, connect_budget=0.1, retry_budget=60))
    errors: list[bool] = []
    news: list[FeedNews] = []
    async with serving(manager) as (context, (stream, jobs), job_id):
        context.ends.on_error = lambda: errors.append(True)
        queue = FeedQueue()
        await context.feed.subscribe(queue)
        await context.feed.subscribe(news.append)
        await stream.wait_for("snapshot")
        redis.pause()
        await until(lambda: errors and any(one.error for one in news))
        await jobs.wait_for('"ok":false')
        redis.resume()
        await until(lambda: any(one.resumed for one in news))
        assert (await queue.take()).resumed
        await jobs.wait_for("event: reset")
        await manager.update_job(job_id, "completed")
        await stream.wait_for("event: end")
        context.feed.unsubscribe(queue)
        context.feed.unsubscribe(news.append)
    await manager.close()
    logged = [record.getMessage() for record in caplog.records if record.name == "milepost.manager.feed_follower"]
    outages = sum(one.resumed for one in news)  # on a busy machine there may be more than one
    assert len([text for text in logged if "store unavailable" in text]) == outages
    assert len([text for text in logged if "available again" in text]) == outages
    assert sum(one.error is not None for one in news) >= outages


async def test_gap_reaches_every_subscriber(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.stores.memory.state.FEED_KEPT", 10)
    manager = AsyncJobManager("memory://")
    feed = manager.store.feed
    held = asyncio.Event()
    held.set()

    async def holding(position: str | None, **options: Any) -> FeedEvents:
        await held.wait()
        return await feed(position, **options)

    monkeypatch.setattr(manager.store, "feed", holding)
    news: list[FeedNews] = []
    async with serving(manager) as (context, (stream, jobs), job_id):
        await until(lambda: len(context.feed._subscribers) == 4)
        await context.feed.subscribe(news.append)
        await stream.wait_for("snapshot")
        await jobs.wait_for("snapshot")
        cursor = (await manager.store.kv_get(CURSOR)) or pytest.fail("no cursor")
        held.clear()
        await manager.update_job(job_id, "running")
        await asyncio.sleep(0.05)  # the follower has this event, and is held before its next read
        await manager.update_job(job_id, "completed")
        for _ in range(12):
            await manager.create_job()
        held.set()
        await stream.wait_for("event: end")
        await jobs.wait_for("event: reset")
        await until(lambda: any(one.lost for one in news))
        async with asyncio.timeout(PATIENCE):
            while not await registry.deliveries(manager.store):  # found by the records
                await asyncio.sleep(0.01)
            while (await manager.store.kv_get(CURSOR)) == cursor:
                await asyncio.sleep(0.01)
        context.feed.unsubscribe(news.append)
    await manager.close()


async def test_failed_start_is_raised_and_tried_again(memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> FeedEvents:
        raise StoreUnavailableError("away")

    follower, news = FeedFollower(lambda: memory.store), list[FeedNews]()
    with monkeypatch.context() as patch:
        patch.setattr(memory.store, "feed", away)
        first, second = (asyncio.create_task(follower.subscribe(news.append)) for _ in range(2))
        assert [type(one) for one in await asyncio.gather(first, second, return_exceptions=True)] == [
            StoreUnavailableError
        ] * 2
    assert follower._subscribers == []
    await follower.subscribe(news.append)
    await memory.create_job()
    await until(lambda: [event.kind for one in news for event in one.events] == ["created"])
    follower.unsubscribe(news.append)


async def test_defect_of_one_subscriber_leaves_the_others(
    memory: AsyncJobManager, caplog: pytest.LogCaptureFixture
) -> None:
    follower, news = FeedFollower(lambda: memory.store), list[FeedNews]()

    def broken(_: FeedNews) -> None:
        raise LookupError

    await follower.subscribe(broken)
    await follower.subscribe(news.append)
    await memory.create_job()
    await until(lambda: any(one.events for one in news))
    follower.unsubscribe(news.append)
    follower.unsubscribe(broken)
    assert "unexpected error in a subscriber of the event feed" in caplog.text


async def test_slow_subscriber_learns_that_it_missed_events(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milepost.manager.feed_follower.MAX_QUEUED_EVENTS", 5)
    assert MAX_QUEUED_EVENTS == 10_000
    follower, queue = FeedFollower(lambda: memory.store), FeedQueue()
    await follower.subscribe(queue)
    for _ in range(3):
        await memory.create_job()
    await until(lambda: follower.position == "3")
    news = await queue.take()
    assert ([event.kind for event in news.events], news.lost) == (["created"] * 3, False)
    for number in range(4, 12):
        await memory.create_job()
        await until(lambda number=number: follower.position == str(number))  # each is read on its own
    news = await queue.take()
    assert news.lost
    assert len(news.events) < 8
    assert (await queue.take(0.01)).position is None
    follower.unsubscribe(queue)
