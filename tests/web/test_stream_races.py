"""Streams over a hub of this process, at the moments in which two things happen at once: a change while another is read,
a client that is slow, a store that goes away.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from milepost import AsyncJobManager, StoreUnavailable
from milepost.web import auth, create_app
from milepost.web.hub import CATCH_UP, Hub
from milepost.web.job_streams import open_stream
from milepost.web.list_streams import open_list_stream
from milepost.web.listing import Wanted
from milepost.web.principals import ANYONE, Principal
from milepost.web.sse import Frame


class Held:
    """A store whose answer about a job, once read, is held back until `go`."""

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


async def test_a_change_while_a_list_reads_the_one_before_is_told(memory: AsyncJobManager) -> None:
    job = await memory.create_job()
    store: Any = Held(memory.store)
    told: asyncio.Queue[str] = asyncio.Queue()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        told.put_nowait(message.get("body", b"").decode())

    hub = Hub(lambda: store)
    stream = await open_list_stream(hub, store, Wanted(), ANYONE, None)
    streaming = asyncio.create_task(stream({"type": "http"}, receive, send))
    await memory.update_job(job.job_id, "running")
    await store.read.wait()  # the list has read that it runs, and has not told it yet
    await memory.update_job(job.job_id, "completed")
    newest = (await memory.store.feed(None)).position
    async with asyncio.timeout(20):
        while hub.boards.position != newest:
            await asyncio.sleep(0.01)
        store.go.set()
        while '"status":"completed"' not in await told.get():
            pass
    streaming.cancel()


async def test_an_event_while_the_record_is_looked_at_takes_no_listener_back(memory: AsyncJobManager) -> None:
    job = await memory.create_job()
    store: Any = Held(memory.store)
    store.go.set()
    sent: list[str] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message.get("body", b"").decode())

    hub = Hub(lambda: store)
    stream = await open_stream(hub, store, job, None, reconnect=False)
    reading = asyncio.create_task(stream({"type": "http"}, receive, send))
    channel = hub._channels[job.job_id]
    store.read.clear()
    store.go.clear()
    looking = asyncio.create_task(hub._look_at([channel]))  # as after a long silence
    await store.read.wait()
    await memory.update_job(job.job_id, "running")
    async with asyncio.timeout(20):
        while channel.version != 2:
            await asyncio.sleep(0.01)
        store.go.set()
        await looking
        await memory.update_job(job.job_id, "completed")
        await reading
    kinds = [line[7:] for line in "".join(sent).splitlines() if line.startswith("event: ")]
    assert kinds == ["snapshot", "running", "completed", "end"]


async def test_who_sees_only_some_jobs_hears_that_one_of_them_is_deleted(memory: AsyncJobManager) -> None:
    mine = await memory.create_job(labels={"owner": "ana"})
    other = await memory.create_job(labels={"owner": "bob"})
    told: asyncio.Queue[str] = asyncio.Queue()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        told.put_nowait(message.get("body", b"").decode())

    hub = Hub(lambda: memory.store)
    stream = await open_list_stream(hub, memory.store, Wanted(), Principal("ana", labels={"owner": "ana"}), None)
    streaming = asyncio.create_task(stream({"type": "http"}, receive, send))
    await memory.delete_job(other.job_id)
    await memory.delete_job(mine.job_id)
    heard = ""
    async with asyncio.timeout(20):
        while '"gone":' not in heard:
            heard += await told.get()
    streaming.cancel()
    assert f'"gone":["{mine.job_id}"]' in heard
    assert other.job_id not in heard


async def test_a_list_that_was_slow_resumes_where_it_was_told(memory: AsyncJobManager) -> None:
    """The newest state that a slow client gets is as old as what its list has read, not as what the hub has heard of."""
    first, second = await memory.create_job(), await memory.create_job()
    store: Any = Held(memory.store)
    store.go.set()
    told: asyncio.Queue[str] = asyncio.Queue()
    takes = asyncio.Event()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if body := message.get("body"):
            told.put_nowait(body.decode())
            await takes.wait()

    hub = Hub(lambda: store)
    stream = await open_list_stream(hub, store, Wanted(), ANYONE, None)
    streaming = asyncio.create_task(stream({"type": "http"}, receive, send))
    (reader,) = hub.boards.readers()
    async with asyncio.timeout(20):
        assert "event: snapshot" in await told.get()
        await memory.update_job(first.job_id, "running")
        while not reader.pending:
            await asyncio.sleep(0.01)
        store.go.clear()
        await memory.update_job(second.job_id, "running")
        newest = (await memory.store.feed(None)).position
        while hub.boards.position != newest:
            await asyncio.sleep(0.01)
        takes.set()
        while first.job_id not in (body := await told.get()):
            pass
    assert second.job_id not in body
    streaming.cancel()
    store.go.set()
    position = next(line[4:] for line in body.splitlines() if line.startswith("id: "))
    resumed: Any = await open_list_stream(hub, store, Wanted(), ANYONE, position)
    assert second.job_id in resumed._opening.decode()
    hub.leave()


async def test_a_store_that_goes_away_again_ends_a_stream_and_is_no_error_of_the_server(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a connection is cut: the client comes again, and hears what it has missed."""
    job = await memory.create_job()
    hub = Hub(lambda: memory.store)
    ended: list[bool] = []

    async def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("away again")

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            ended.append(True)

    streams = [
        await open_list_stream(hub, memory.store, Wanted(), ANYONE, None),
        await open_stream(hub, memory.store, job, None, reconnect=False),
    ]
    streaming = [asyncio.create_task(stream({"type": "http"}, receive, send)) for stream in streams]
    monkeypatch.setattr(memory.store, "select", away)
    monkeypatch.setattr(memory.store, "events", away)
    hub.boards.reset()
    hub._channels[job.job_id].tell(Frame(3, True, b"", CATCH_UP))
    async with asyncio.timeout(20):
        await asyncio.gather(*streaming)
    assert ended == [True, True]
    assert hub.clients == 0


async def test_a_store_that_is_away_leaves_no_task_of_the_hub_behind(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr(memory.store, "feed", away)
    hub = Hub(lambda: memory.store)
    before = asyncio.all_tasks()
    first = asyncio.create_task(hub.enter())
    while not (hub.clients and hub._ready is None):
        await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):  # it comes when the first has been told and has not left yet
        await hub.enter()
    with pytest.raises(StoreUnavailable):
        await first
    await asyncio.sleep(0)
    assert hub.clients == 0
    assert asyncio.all_tasks() - before == set()


@pytest.mark.parametrize("path", ["/api/events", "/api/jobs/one/events"])
async def test_a_stream_ends_when_its_key_is_revoked(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("milepost.web.sse.ALLOWED_SECONDS", 0.05)
    await memory.create_job("one")
    app = create_app(memory, auth=auth.api_keys())
    key, secret = await app.state.milepost.gate.keys.create("short", ["jobs:read"])
    opened = asyncio.Event()
    ended: list[bool] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            opened.set()
            ended.append(not message["more_body"])

    headers = [(b"authorization", f"Bearer {secret}".encode())]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}
    streaming = asyncio.create_task(app(scope, receive, send))
    async with asyncio.timeout(20):
        await opened.wait()
        assert await app.state.milepost.gate.keys.revoke(key.id)
        await streaming
    assert ended[-1]
    assert app.state.milepost.hub.clients == 0
