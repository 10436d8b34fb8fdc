"""Races in streams over a hub of this process: concurrent changes and reads, slow clients, store outages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi import HTTPException

from milepost import AsyncJobManager, StoreUnavailableError
from milepost.core.job import Job
from milepost.core.output import OutputPosition
from milepost.core.transitions import plan_create
from milepost.manager.feed_follower import FeedFollower
from milepost.manager.validation import submit_fields
from milepost.stores.ids import new_job_id, new_operation_id
from milepost.stores.protocol import Write
from milepost.web import auth, create_app
from milepost.web.http.list_params import ListParams
from milepost.web.live.hub import CATCH_UP, Hub
from milepost.web.live.job_stream import JobStream, OutputStream
from milepost.web.live.list_stream import open_list_stream
from milepost.web.live.sse import Frame
from milepost.web.security.principals import ANYONE, Principal
from milepost.worker.start_forecast import Forecast
from tests.waiting import PATIENCE

pytestmark = pytest.mark.timing


async def submitted(manager: AsyncJobManager) -> str:
    job_id = new_job_id()
    await manager.store.apply([Write(job_id, plan_create(submit_fields("generic", params={}), new_operation_id()))])
    return job_id


class PausedStore:
    """A store whose response about a job is held back until `go`."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.read, self.go = asyncio.Event(), asyncio.Event()

    async def get(self, job_id: str) -> Any:
        job = await self._store.get(job_id)
        self.read.set()
        await self.go.wait()
        return job

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def receive() -> Any:
    """Receive nothing: the client stays connected."""
    await asyncio.Event().wait()


class Received(asyncio.Queue[str]):
    """What a client receives, in the parts that are sent."""

    async def send(self, message: Any) -> None:
        if body := message.get("body"):
            self.put_nowait(body.decode())


async def test_change_during_a_list_read_is_sent(memory: AsyncJobManager) -> None:
    job = await memory.create_job()
    store: Any = PausedStore(memory.store)
    received = Received()

    hub = Hub(FeedFollower(lambda: store))
    stream = await open_list_stream(hub, ListParams(), ANYONE, None)
    streaming = asyncio.create_task(stream({"type": "http"}, receive, received.send))
    await memory.update_job(job.job_id, "running")
    await store.read.wait()  # the list has read the job as running, and has not sent it yet
    await memory.update_job(job.job_id, "completed")
    newest = (await memory.store.feed(None)).position
    async with asyncio.timeout(PATIENCE):
        while hub.lists.position != newest:
            await asyncio.sleep(0.01)
        store.go.set()
        while '"status":"completed"' not in await received.get():
            pass
    streaming.cancel()


async def test_event_during_record_check_does_not_regress(memory: AsyncJobManager) -> None:
    job = await memory.create_job()
    store: Any = PausedStore(memory.store)
    store.go.set()
    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b"").decode())

    hub = Hub(FeedFollower(lambda: store))
    stream = await JobStream.start(hub, job.job_id, None)
    reading = asyncio.create_task(stream({"type": "http"}, receive, send))
    channel = hub._channels[job.job_id]
    store.read.clear()
    store.go.clear()
    looking = asyncio.create_task(hub._reconcile([channel]))  # as after a long time without events
    await store.read.wait()
    await memory.update_job(job.job_id, "running")
    async with asyncio.timeout(PATIENCE):
        while channel.version != 2:
            await asyncio.sleep(0.01)
        store.go.set()
        await looking
        await memory.update_job(job.job_id, "completed")
        await reading
    kinds = [line[7:] for line in "".join(sent).splitlines() if line.startswith("event: ")]
    assert kinds == ["snapshot", "running", "completed", "end"]


async def test_output_of_recreated_job_is_not_sent(memory: AsyncJobManager) -> None:
    """Its id was deleted and used again by another owner after the stream had read its job."""
    await memory.create_job("x", labels={"owner": "ana"})
    store: Any = PausedStore(memory.store)
    store.go.set()
    received = Received()
    hub = Hub(FeedFollower(lambda: store))
    stream = await OutputStream.start(hub, "x", OutputPosition(), principal=Principal("ana", labels={"owner": "ana"}))
    store.read.clear()
    store.go.clear()
    streaming = asyncio.create_task(stream({"type": "http"}, receive, received.send))
    async with asyncio.timeout(PATIENCE):
        await store.read.wait()
        await memory.delete_job("x")
        async with memory.track("chat", job_id="x", labels={"owner": "bob"}) as run:
            run.output("text of bob")
        assert await memory.output("x")
        store.go.set()
        await streaming
    text = "".join(received.get_nowait() for _ in range(received.qsize()))
    assert "event: end" in text
    assert "bob" not in text


async def test_restricted_principal_gets_deletion_of_visible_job(memory: AsyncJobManager) -> None:
    mine = await memory.create_job(labels={"owner": "ana"})
    other = await memory.create_job(labels={"owner": "bob"})
    received = Received()

    hub = Hub(FeedFollower(lambda: memory.store))
    stream = await open_list_stream(hub, ListParams(), Principal("ana", labels={"owner": "ana"}), None)
    streaming = asyncio.create_task(stream({"type": "http"}, receive, received.send))
    await memory.delete_job(other.job_id)
    await memory.delete_job(mine.job_id)
    text = ""
    async with asyncio.timeout(PATIENCE):
        while '"gone":' not in text:
            text += await received.get()
    streaming.cancel()
    assert f'"gone":["{mine.job_id}"]' in text
    assert other.job_id not in text


async def test_slow_list_resumes_at_its_position(memory: AsyncJobManager) -> None:
    """The position of a slow client is that of its last batch, even if the hub is ahead."""
    first, second = await memory.create_job(), await memory.create_job()
    store: Any = PausedStore(memory.store)
    store.go.set()
    received: asyncio.Queue[str] = asyncio.Queue()
    takes = asyncio.Event()

    async def send(message: Any) -> None:
        if body := message.get("body"):
            received.put_nowait(body.decode())
            await takes.wait()

    hub = Hub(FeedFollower(lambda: store))
    stream = await open_list_stream(hub, ListParams(), ANYONE, None)
    streaming = asyncio.create_task(stream({"type": "http"}, receive, send))
    (reader,) = hub.lists.clients()
    async with asyncio.timeout(PATIENCE):
        assert "event: snapshot" in await received.get()
        await memory.update_job(first.job_id, "running")
        while not reader.pending:
            await asyncio.sleep(0.01)
        store.go.clear()
        await memory.update_job(second.job_id, "running")
        newest = (await memory.store.feed(None)).position
        while hub.lists.position != newest:
            await asyncio.sleep(0.01)
        takes.set()
        while first.job_id not in (body := await received.get()):
            pass
    assert second.job_id not in body
    streaming.cancel()
    store.go.set()
    position = next(line[4:] for line in body.splitlines() if line.startswith("id: "))
    resumed: Any = await open_list_stream(hub, ListParams(), ANYONE, position)
    assert second.job_id in resumed._opening.decode()
    hub.leave()


async def test_repeated_store_outage_ends_stream_without_error(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a broken connection, the client reconnects and receives what it missed."""
    job = await memory.create_job()
    hub = Hub(FeedFollower(lambda: memory.store))
    ended: list[bool] = []

    async def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("away again")

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            ended.append(True)

    streams = [
        await open_list_stream(hub, ListParams(), ANYONE, None),
        await JobStream.start(hub, job.job_id, None),
    ]
    streaming = [asyncio.create_task(stream({"type": "http"}, receive, send)) for stream in streams]
    monkeypatch.setattr(memory.store, "select", away)
    monkeypatch.setattr(memory.store, "events", away)
    hub.lists.reset()
    hub._channels[job.job_id].publish(Frame(3, True, b"", CATCH_UP))
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*streaming)
    assert ended == [True, True]
    assert hub.clients == 0


async def test_store_outage_leaves_no_hub_task(memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(memory.store, "feed", away)
    hub = Hub(FeedFollower(lambda: memory.store))
    before = asyncio.all_tasks()
    first = asyncio.create_task(hub.enter())
    while not (hub.clients and hub._follower._started is None):
        await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError):  # it arrives after the first was refused and before it left
        await hub.enter()
    with pytest.raises(StoreUnavailableError):
        await first
    await asyncio.sleep(0)
    assert hub.clients == 0
    assert asyncio.all_tasks() - before == set()


@pytest.mark.parametrize("path", ["/api/events", "/api/jobs/one/events"])
async def test_a_stream_ends_when_its_key_is_revoked(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("milepost.web.live.sse.ALLOWED_SECONDS", 0.05)
    await memory.create_job("one")
    app = create_app(memory, auth=auth.api_keys())
    key, secret = await app.state.milepost.authenticator.keys.create("short", ["jobs:read"])
    opened = asyncio.Event()
    ended: list[bool] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            opened.set()
            ended.append(not message["more_body"])

    headers = [(b"authorization", f"Bearer {secret}".encode())]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}
    streaming = asyncio.create_task(app(scope, receive, send))
    async with asyncio.timeout(PATIENCE):
        await opened.wait()
        assert await app.state.milepost.authenticator.keys.revoke(key.id)
        await streaming
    assert ended[-1]
    assert app.state.milepost.hub.clients == 0


@pytest.mark.parametrize("path", ["/api/events", "/api/jobs/one/events"])
async def test_dependency_user_stream_must_be_reopened(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A user who had been signed out continued to receive events as long as the stream was open."""
    now, asked = 1000.0, asyncio.Queue[None]()

    def clock() -> float:
        asked.put_nowait(None)
        return now

    monkeypatch.setattr("milepost.web.live.sse.ALLOWED_SECONDS", 0.02)
    monkeypatch.setattr("milepost.web.auth.monotonic", clock)
    await memory.create_job("one")
    signed_out = False

    def user() -> Principal:
        if signed_out:
            raise HTTPException(401)
        return Principal("ana")

    app = create_app(memory, auth=user)
    received: list[Any] = []

    async def send(message: Any) -> None:
        received.append(message)

    def opened() -> asyncio.Task[None]:
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
        return asyncio.create_task(app(scope, receive, send))

    async with asyncio.timeout(PATIENCE):
        streaming = opened()
        for _ in range(5):  # checked repeatedly, it stays open
            await asked.get()
        assert not streaming.done()
        now += 300
        await streaming
        assert (received[0]["status"], received[-1]["more_body"]) == (200, False)
        signed_out = True
        received.clear()
        await opened()
    assert received[0]["status"] == 401
    assert app.state.milepost.hub.clients == 0


async def test_wait_of_pending_job_is_sent_only_when_it_changes(memory: AsyncJobManager) -> None:
    reason = "no_worker"
    described: list[int] = []
    received = Received()

    async def describe(jobs: Sequence[Job]) -> list[Job]:
        described.append(len(jobs))
        known = Forecast(0, {}, {}, frozenset(), frozenset({"generic"} if reason == "paused" else ()), {}, {})
        return [known.describe(job) for job in jobs]

    listed = await submitted(memory)
    hub = Hub(FeedFollower(lambda: memory.store), describe=describe)
    stream = await open_list_stream(hub, ListParams(), ANYONE, None)
    streaming = asyncio.create_task(stream({"type": "http"}, receive, received.send))
    added = await submitted(memory)
    async with asyncio.timeout(PATIENCE):
        assert "No worker serves generic" in await received.get()
        while added not in (body := await received.get()):
            pass
        assert listed not in body
        hub.lists._waited_at = 0.0
        described.clear()
        while 2 not in described:  # the reasons of both jobs are read again
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        sent = [received.get_nowait() for _ in range(received.qsize())]
        assert not any("event: jobs" in one for one in sent)
        reason, hub.lists._waited_at = "paused", 0.0
        while "event: jobs" not in (body := await received.get()):
            pass
        assert body.count("Type generic is paused") == 2
        assert "id: " not in body  # events before it may still be unsent
    streaming.cancel()


async def test_waits_read_during_a_snapshot_are_not_sent_twice(memory: AsyncJobManager) -> None:
    calls: list[int] = []
    other_call = asyncio.Event()
    received = Received()

    async def describe(jobs: Sequence[Job]) -> list[Job]:
        calls.append(len(jobs))
        if len(calls) == 1:
            await other_call.wait()  # until the reasons of known jobs are read for other clients
        else:
            asyncio.get_running_loop().call_soon(other_call.set)
        known = Forecast(0, {}, {}, frozenset(), frozenset(), {}, {})
        return [known.describe(job) for job in jobs]

    listed = await submitted(memory)
    hub = Hub(FeedFollower(lambda: memory.store), describe=describe)
    async with asyncio.timeout(PATIENCE):
        stream = await open_list_stream(hub, ListParams(), ANYONE, None)
        streaming = asyncio.create_task(stream({"type": "http"}, receive, received.send))
        added = await submitted(memory)
        while added not in (body := await received.get()):
            assert "event: jobs" not in body
        assert body.count(listed) == 0
    streaming.cancel()
