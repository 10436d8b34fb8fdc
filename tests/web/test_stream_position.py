"""Streams of an id that was deleted and created again: the new job is a different one, whatever its version."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager, JobManager
from milepost.client import Client
from milepost.core.events import StreamPosition
from milepost.manager.feed_follower import FeedFollower
from milepost.stores.memory.store import MemoryStore
from milepost.web.http.problems import Problem
from milepost.web.live.hub import Hub
from milepost.web.live.job_stream import JobStream
from milepost.web.security.principals import Principal
from tests.waiting import PATIENCE
from tests.web.server import Message, Server, messages


def live(server: Server, changes: int) -> None:
    """Create a job and change it."""
    server.drive("create_job", "a")
    server.drive("update_job", "a", "running")
    for number in range(changes):
        server.drive("update_job", "a", message=f"{number}")


def read(server: Server, until: int = 1000, **how: Any) -> list[Message]:
    """Return the messages of the stream until its end, or the first `until`."""
    found: list[Message] = []
    with httpx.stream("GET", f"{server.url}/api/jobs/a/events", **how) as answer:
        assert answer.status_code == 200, answer.read()
        for message in messages(answer):
            found.append(message)
            if len(found) == until:
                break
    return found


def test_resume_on_recreated_id_begins_with_snapshot(server: Server) -> None:
    """A client that reconnected after its job was deleted and recreated received the new events as those of the old
    job.
    """
    live(server, 1)
    (seen,) = read(server, 1)
    assert seen.id is not None
    with Client(server.url) as client:
        received = next(client.watch("a"))
        assert (received.version, received.position) == (3, seen.id)
        server.drive("delete_job", "a")
        live(server, 4)

        by_header = read(server, 1, headers={"Last-Event-ID": seen.id})
        by_parameter = read(server, 1, params={"after": seen.id})
        by_client = next(client.watch("a", after=seen.id))
        assert [(m.kind, m.version) for m in by_header + by_parameter] == [("snapshot", 6)] * 2
        assert (by_client.kind, by_client.version) == ("snapshot", 6)
        # A version alone refers to the job that has the id now.
        assert [m.kind for m in read(server, 1, params={"after": 1})] == ["running"]

        listed = httpx.get(
            f"{server.url}/api/jobs/a/events", params={"after": seen.id}, headers={"Accept": "application/json"}
        )
        assert listed.json()[0]["version"] == 1

        server.drive("update_job", "a", "completed")
        # Not 204, because this client has seen nothing of the new job.
        late = f"99{seen.id.removeprefix('3')}"
        assert [m.kind for m in read(server, headers={"Last-Event-ID": late})] == ["snapshot", "end"]
        assert [e.kind for e in client.watch("a", after=by_client.position)] == ["completed"]


@pytest.mark.timing
def test_client_watch_across_restart_shows_recreated_job(sqlite_url: str) -> None:
    """A client continued with a recreated job as if it were the old one, if the server was down in between."""
    stay = JobManager(sqlite_url)
    stay.create_job("a")
    with Server(sqlite_url) as server, Client(server.url) as client:
        watching = client.watch("a")
        assert [next(watching).version] == [1]
        server.end()
        stay.delete_job("a")
        stay.create_job("a")
        stay.update_job("a", status="running")
        server.start()
        again = next(watching)
        stay.update_job("a", status="completed")
        assert [(e.kind, e.version) for e in (again, *watching)] == [("snapshot", 2), ("completed", 3)]
    stay.close()


class Feedless:
    """A store whose feed pauses until `go`, and then reports the loss of the jobs in `loses`."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.go, self.loses = asyncio.Event(), False

    async def feed(self, position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> Any:
        if position is None:
            return await self._store.feed(None)
        await self.go.wait()
        if self.loses:
            self.loses = False
            return (await self._store.feed(None))._replace(lost=True)
        return await self._store.feed(position, limit=limit, timeout=timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Streaming:
    """A stream that is read in this process."""

    def __init__(self, stream: Any) -> None:
        self._sent: list[str] = []
        self._news = asyncio.Event()
        self.task = asyncio.create_task(stream({"type": "http"}, self._receive, self._send))

    async def _receive(self) -> Any:
        await asyncio.Event().wait()

    async def _send(self, message: Any) -> None:
        self._sent.append(message.get("body", b"").decode())
        self._news.set()

    @property
    def received(self) -> list[tuple[str, str]]:
        """The kinds and ids received so far."""
        blocks = [dict(line.split(": ", 1) for line in b.splitlines()) for b in "".join(self._sent).split("\n\n")]
        return [(b["event"], b.get("id", "").partition("-")[0]) for b in blocks if "event" in b]

    async def until(self, kind: str) -> None:
        """Wait until a kind was received."""
        async with asyncio.timeout(PATIENCE):
            while kind not in [k for k, _ in self.received]:
                self._news.clear()
                await self._news.wait()


async def recreate(memory: AsyncJobManager) -> None:
    """Delete the job and create another one with its id and a higher version."""
    await memory.delete_job("a")
    await memory.create_job("a")
    for number in range(6):
        await memory.update_job("a", message=f"new {number}")


async def test_stream_ignores_late_events_of_deleted_predecessor(memory: AsyncJobManager) -> None:
    """A stream of a new job ended as deleted, because the feed still delivered the end of the previous job with its id."""
    await memory.create_job("a")
    for number in range(9):
        await memory.update_job("a", message=f"old {number}")
    store: Any = Feedless(memory.store)
    hub = Hub(FeedFollower(lambda: store))
    job = await memory.get_job("a")
    assert job is not None
    first = Streaming(await JobStream.start(hub, job.job_id, None))  # the hub reads the feed from here on
    await memory.update_job("a", message="last words")
    await recreate(memory)
    job = await memory.get_job("a")
    assert job is not None
    second = Streaming(await JobStream.start(hub, job.job_id, None))
    store.go.set()
    async with asyncio.timeout(PATIENCE):
        await first.task
    await memory.update_job("a", "completed")
    async with asyncio.timeout(PATIENCE):
        await second.task
    assert first.received[0] == ("snapshot", "10")
    assert [kind for kind, _ in first.received][-2:] == ["deleted", "end"]
    assert ("completed", "8") not in first.received
    assert second.received == [("snapshot", "7"), ("completed", "8"), ("end", "")]


async def test_stream_sends_progress_after_clock_was_set_back() -> None:
    """After the clock was set back, an event may be older than its job's creation and still belong to it."""
    now = [1_700_000_000_000_000]
    manager = AsyncJobManager(MemoryStore(blocking=False, clock=lambda: now[0]))
    job = await manager.create_job("a")
    hub = Hub(FeedFollower(lambda: manager.store))
    stream = Streaming(await JobStream.start(hub, job.job_id, None))
    await stream.until("snapshot")
    now[0] -= 3_600_000_000
    await manager.update_job("a", status="running")
    await stream.until("running")
    await manager.create_job("other")
    async with asyncio.timeout(PATIENCE):
        while hub.reads < 2:
            await asyncio.sleep(0.01)
    await manager.update_job("a", progress=0.5)
    await stream.until("progress")
    assert stream.received == [("snapshot", "1"), ("running", "2"), ("progress", "3")]
    stream.task.cancel()


async def test_stream_ends_as_deleted_after_lost_feed(memory: AsyncJobManager) -> None:
    """A stream continued with the events of another job if it missed the deletion of its own."""
    await memory.create_job("a")
    await memory.update_job("a", "running")
    store: Any = Feedless(memory.store)
    hub = Hub(FeedFollower(lambda: store))
    job = await memory.get_job("a")
    assert job is not None
    stream = Streaming(await JobStream.start(hub, job.job_id, None))
    await recreate(memory)
    store.loses = True
    store.go.set()
    async with asyncio.timeout(PATIENCE):
        await stream.task
    assert stream.received == [("snapshot", "2"), ("deleted", "3"), ("end", "")]


async def test_stream_of_replaced_job_needs_permission_for_new_one(memory: AsyncJobManager) -> None:
    """A client with a position of one job was shown the job of another user that took its id."""
    job = await memory.create_job("a", labels={"owner": "ana"})
    ana = Principal("ana", labels={"owner": "ana"})
    await recreate(memory)
    hub = Hub(FeedFollower(lambda: memory.store))
    with pytest.raises(Problem, match="Job not found"):
        await JobStream.start(hub, job.job_id, StreamPosition(1), reconnect=True, principal=ana)
    assert hub.clients == 0
