"""The output of a job over HTTP: each token once and in order, at readers that reconnect at any time."""

from __future__ import annotations

import asyncio
import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import aclosing, closing

import httpx
import pytest

from milepost import Client, JobManager, JobNotFoundError
from milepost.client import AsyncClient
from tests.waiting import PATIENCE, until
from tests.web.server import Server, messages

TOKENS_PER_SECOND, READERS = 200, 50


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('output')}/jobs.db"


@pytest.fixture(scope="module")
def server(url: str) -> Iterator[Server]:
    with Server(url) as server:
        yield server


@pytest.fixture
def manager(url: str) -> Iterator[JobManager]:
    made = JobManager(url)
    yield made
    made.close()


@pytest.mark.timing
@pytest.mark.parametrize("seconds", [6, pytest.param(60, marks=pytest.mark.nightly)])
def test_readers_that_reconnect_get_each_token_once_and_in_order(
    server: Server, manager: JobManager, seconds: int
) -> None:
    stream_to_readers(server, manager, seconds)


@pytest.mark.timing
@pytest.mark.nightly
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("redis", marks=pytest.mark.service("redis-server")),
        pytest.param("postgres", marks=pytest.mark.service("postgresql")),
    ],
)
def test_readers_on_other_stores_get_each_token_once_and_in_order(request: pytest.FixtureRequest, kind: str) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    with Server(url) as server, closing(JobManager(url)) as manager:
        stream_to_readers(server, manager, 60)


def stream_to_readers(server: Server, manager: JobManager, seconds: int) -> None:
    """Write tokens for this many seconds, and compare what readers get that reconnect at any time."""
    tokens, job_id = [f"token{number} " for number in range(TOKENS_PER_SECOND * seconds)], f"tokens-{uuid.uuid4()}"
    seed = random.randrange(1 << 32)
    started = threading.Event()

    def stream() -> None:
        with manager.track("chat", job_id=job_id) as run:
            started.set()
            begin = time.monotonic()
            for number, token in enumerate(tokens):
                run.output(token)
                time.sleep(max(0.0, begin + number / TOKENS_PER_SECOND - time.monotonic()))

    async def read(client: AsyncClient, number: int) -> str:
        chance, text, after, connections = random.Random(seed + number), "", None, 0
        while True:
            connections += 1
            left = 1 if connections == 1 else chance.randrange(1, 4)
            async with aclosing(client.follow_output(job_id, after)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    text, after, left = text + chunk.text, chunk.position, left - 1
                    if left == 0:
                        break
                else:
                    assert connections > 1
                    return text

    async def read_all() -> list[str]:
        async with AsyncClient(server.url) as client:
            return await asyncio.gather(*(read(client, number) for number in range(READERS)))

    writer = threading.Thread(target=stream)
    writer.start()
    assert started.wait(PATIENCE)
    texts = asyncio.run(read_all())
    writer.join()
    assert set(texts) == {"".join(tokens)}, f"seed {seed}"


def test_stream_is_resumed_by_last_event_id_and_ends_with_job(server: Server, manager: JobManager) -> None:
    with manager.track("chat") as run:
        run.output("one ")
    path = f"{server.url}/api/jobs/{run.job_id}/output"
    with httpx.stream("GET", path) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = list(messages(answer))
    assert [message.kind for message in found] == ["output", "end"]
    assert (found[0].data["text"], found[0].data["attempt"], found[0].data["starts_over"]) == ("one ", 1, True)
    position = str(found[0].data["position"])
    assert httpx.get(path, headers={"Last-Event-ID": position}).status_code == 204
    listed = httpx.get(path, headers={"Accept": "application/json"}).json()
    assert listed == [found[0].data]
    after = httpx.get(path, params={"after": position}, headers={"Accept": "application/json"})
    assert after.json() == []


def test_clients_read_output(server: Server, manager: JobManager) -> None:
    with manager.track("chat") as run:
        run.output("text")
    with Client(server.url) as client:
        [chunk] = client.output(run.job_id)
        assert list(client.follow_output(run.job_id)) == [chunk] == manager.output(run.job_id)
        assert client.output(run.job_id, after=chunk.position) == []
        with pytest.raises(JobNotFoundError):
            client.output("nothing")
        with pytest.raises(JobNotFoundError):
            list(client.follow_output("nothing"))


def test_deleted_job_ends_stream(server: Server, manager: JobManager) -> None:
    manager.create_job("gone")
    with httpx.stream("GET", f"{server.url}/api/jobs/gone/output") as answer:
        manager.delete_job("gone")
        assert [message.kind for message in messages(answer)] == ["deleted", "end"]


def deletable(manager: JobManager, job_id: str) -> str:
    """Start a run that has written output and that no code ends, and return the id of its job."""
    manager.track("chat", job_id=job_id).__enter__().output("text")
    until(lambda: manager.output(job_id))
    return job_id


def test_clients_that_follow_a_deleted_job_get_an_error(server: Server, manager: JobManager) -> None:
    job_id = deletable(manager, "deleted")
    with Client(server.url) as client:
        chunks = client.follow_output(job_id)
        assert next(chunks).text == "text"
        manager.delete_job(job_id)
        with pytest.raises(JobNotFoundError, match="Job deleted not found"):
            next(chunks)

    async def follow(job_id: str) -> None:
        async with AsyncClient(server.url) as client:
            chunks = client.follow_output(job_id)
            await anext(chunks)
            manager.delete_job(job_id)
            await anext(chunks)

    with pytest.raises(JobNotFoundError):
        asyncio.run(follow(deletable(manager, "deleted-too")))


def test_wrong_position_is_refused(server: Server, manager: JobManager) -> None:
    job_id = manager.create_job().job_id
    answer = httpx.get(f"{server.url}/api/jobs/{job_id}/output", params={"after": "7"})
    assert (answer.status_code, "after" in answer.json()["detail"]) == (422, True)
