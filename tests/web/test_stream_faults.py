"""Streams through a proxy that delays and cuts, and across server restarts.

Every lifecycle and checkpoint event arrives once and in order, every omitted range is declared, and the end arrives
last.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager, Client, Event, JobManager
from milepost.core.events import LIFECYCLE_KINDS, StreamPosition
from milepost.manager.feed_follower import FeedFollower
from milepost.settings import Settings
from milepost.web.http.problems import Problem
from milepost.web.live.hub import Hub
from milepost.web.live.job_stream import JobStream
from milepost.web.live.sse import MAX_QUEUED_FRAMES
from tests.services import free_port
from tests.waiting import PATIENCE, until
from tests.web.server import Server, messages
from tests.web.slow_proxy import SlowProxy

pytestmark = pytest.mark.timing

NEVER_LEFT_OUT = LIFECYCLE_KINDS | {"checkpoint"}
Received = tuple[int, str, tuple[int, int] | None]
"""A version, its kind, and the range of `skipped`."""


class ProxiedServer:
    """A store that outlives its servers, and the manager through which the job's code writes."""

    def __init__(self, request: pytest.FixtureRequest, kind: str) -> None:
        self.environment: dict[str, Any] = {}
        options = Settings(heartbeat=0.2)
        if kind == "sqlite":
            self.url = str(request.getfixturevalue("sqlite_url"))
        else:
            self.url = str(request.getfixturevalue("redis_url"))
            namespace = str(request.getfixturevalue("redis_namespace"))
            self.environment["MILEPOST_NAMESPACE"] = namespace
            options = Settings(heartbeat=0.2, namespace=namespace)
        self.manager = JobManager(self.url, options=options)


@pytest.fixture(params=["sqlite", "redis"])
def stay(request: pytest.FixtureRequest) -> ProxiedServer:
    return ProxiedServer(request, request.param)


class Work:
    """A tracked job that reports progress, log lines and checkpoints until `end`.

    It is slow enough that its events fit into the bounded list of a job, also when the test takes a minute.
    """

    def __init__(self, manager: JobManager) -> None:
        self._over = threading.Event()
        self.checkpoints = 0
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(manager,), daemon=True)
        self._thread.start()
        assert self._begun.wait(PATIENCE)

    def _run(self, manager: JobManager) -> None:
        with manager.track("ingestion") as run:
            self.job_id = run.job_id
            self._begun.set()
            step = 0
            while not self._over.is_set():
                step += 1
                run.progress(min(0.99, step / 5000), f"page {step}")
                run.log(f"line {step}")
                if step % 7 == 0:
                    run.checkpoint({"page": step})
                    self.checkpoints += 1
                self._over.wait(0.03)

    def end(self) -> None:
        """Let the job complete."""
        self._over.set()
        self._thread.join(60)


def raw(url: str, job_id: str, received: list[Received]) -> None:
    """Read a stream like a minimal `EventSource` client, which remembers only the last id."""
    last = ""
    while True:
        try:
            headers = {"Last-Event-ID": last} if last else {}
            path = f"{url}/api/jobs/{job_id}/events" + ("" if last else "?after=0")
            with httpx.stream("GET", path, headers=headers) as answer:
                if answer.status_code == 204:
                    return
                for message in messages(answer) if answer.status_code == 200 else ():
                    if message.kind == "end":
                        return
                    assert message.id is not None
                    assert message.version is not None
                    last = message.id
                    between = message.data.get("data", {}) if message.kind == "skipped" else None
                    received.append(
                        (message.version, message.kind, (between["after"], between["before"]) if between else None)
                    )
        except httpx.TransportError:
            pass
        threading.Event().wait(0.05)  # browsers wait as well


def watched(url: str, job_id: str, received: list[Received]) -> None:
    """Watch a job with the client of the package."""
    with Client(url) as client:
        for event in client.watch(job_id, after=0):
            between = (event.data["after"], event.data["before"]) if event.kind == "skipped" else None
            received.append((event.version, event.kind, between))


def check(received: list[Received], kept: list[Event], checkpoints: int) -> None:
    """Compare what a client received with the events in the store."""
    versions = [version for version, _, _ in received]
    assert versions == sorted(set(versions)), "in order, and none twice"
    lasting = [(event.version, event.kind) for event in kept if event.kind in NEVER_LEFT_OUT]
    assert [(version, kind) for version, kind, _ in received if kind in NEVER_LEFT_OUT] == lasting
    assert sum(kind == "checkpoint" for _, kind in lasting) == checkpoints, "the store kept them all"
    known = {version for version, kind, _ in received if kind != "skipped"}
    for _, _, between in received:
        if between is not None:
            known |= set(range(between[0] + 1, between[1]))
            assert not [version for version, _ in lasting if between[0] < version < between[1]]
    assert known == set(range(1, kept[-1].version + 1)), "what was left out is declared"
    assert received[-1][1] == "completed"


@pytest.mark.parametrize("read", [raw, watched])
def test_cuts_delays_and_restarts(stay: ProxiedServer, read: Callable[[str, str, list[Received]], None]) -> None:
    port = free_port()
    received: list[Received] = []
    server = Server(stay.url, port=port, **stay.environment)
    with server, SlowProxy(port) as proxy:
        work = Work(stay.manager)
        reader = threading.Thread(target=read, args=(proxy.url, work.job_id, received), daemon=True)
        reader.start()

        def hear(more: int = 5) -> None:
            """Wait until the client has received this many more events."""
            begun = len(received)
            until(lambda: len(received) >= begun + more)

        for _ in range(4):
            hear()
            proxy.cut()
        hear()
        server.end()
        server.start()
        hear()
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        before = work.checkpoints
        until(lambda: work.checkpoints > before + 3)  # events while the server is stopped
        server.start()
        hear()
        work.end()
        reader.join(120)
        assert not reader.is_alive()
    check(received, stay.manager.events(work.job_id, 0, 100_000), work.checkpoints)


async def test_slow_client_gets_declared_gaps(memory: AsyncJobManager) -> None:
    """The connection accepts no data while hundreds of events arrive: a few are queued, and the others are declared."""
    job = await memory.create_job()
    sent: list[bytes] = []
    opened, takes = asyncio.Event(), asyncio.Event()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if body := message.get("body"):
            sent.append(body)
            opened.set()
            await takes.wait()

    hub = Hub(FeedFollower(lambda: memory.store))
    stream = await JobStream.start(hub, job.job_id, StreamPosition(0), reconnect=True)
    reading = asyncio.create_task(stream({"type": "http"}, receive, send))
    await opened.wait()
    await memory.update_job(job.job_id, "running")
    for step in range(1, 400):
        await memory.update_job(job.job_id, progress=step / 400)
        await asyncio.sleep(0)
    (reader,) = hub._channels[job.job_id].clients
    async with asyncio.timeout(PATIENCE):
        while reader.frames[-1].version < 401:
            await asyncio.sleep(0.01)
    assert len(reader.frames) <= MAX_QUEUED_FRAMES
    await memory.update_job(job.job_id, "completed")
    takes.set()
    async with asyncio.timeout(PATIENCE):
        await reading
    received: list[Received] = []
    for part in b"".join(sent).decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in part.splitlines())
        if "id" in fields:
            data = json.loads(fields["data"]).get("data", {})
            between = (data["after"], data["before"]) if fields["event"] == "skipped" else None
            received.append((int(fields["id"].partition("-")[0]), fields["event"], between))
    assert "skipped" in {kind for _, kind, _ in received}
    check(received, await memory.events(job.job_id), 0)


async def test_too_many_clients_is_503_with_retry_after(memory: AsyncJobManager) -> None:
    hub = Hub(FeedFollower(lambda: memory.store), clients_max=2)
    await hub.enter()
    await hub.enter()
    with pytest.raises(Problem) as refused:
        await hub.enter()
    assert (refused.value.status_code, hub.clients) == (503, 2)
    assert refused.value.headers == {"Retry-After": "5"}
    hub.leave()
    await hub.enter()
    for _ in range(2):
        hub.leave()
