"""Webhooks: signed with a stable id, sent again until taken, ended by 410, never to a private address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from milepost import AsyncJobManager
from milepost.core.errors import InvalidInput
from milepost.web import hooks
from milepost.web.addresses import is_public, public_address
from milepost.web.delivering import CURSOR, Deliverer
from tests.web.conftest import client_of

Answer = Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


def deliverer_to(manager: AsyncJobManager, answer: Answer) -> Deliverer:
    async def resolve(url: str) -> str:
        return "203.0.113.7"

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return Deliverer(lambda: manager.store, resolve=resolve, client=client)


async def test_an_end_is_told_once_signed_and_again_with_the_same_id(manager: AsyncJobManager) -> None:
    got: list[tuple[str, Any]] = []
    statuses = [500, 200]

    def answer(request: httpx.Request) -> httpx.Response:
        body = Webhook(hook.secret).verify(request.content, dict(request.headers))
        got.append((request.headers["webhook-id"], body))
        assert request.url.host == "203.0.113.7"
        assert request.headers["host"] == "hooks.example.org"
        return httpx.Response(statuses.pop(0))

    hook = await hooks.create(manager.store, "https://hooks.example.org/in", ("failed",), "type:ingestion")
    deliverer = deliverer_to(manager, answer)
    await deliverer.note([hook], wait=0)
    for kind, status in (("ingestion", "failed"), ("ingestion", "completed"), ("other", "failed")):
        job = await manager.create_job(job_type=kind)
        await manager.update_job(job.job_id, status, error="no" if status == "failed" else None)
    await deliverer.note([hook], wait=0)
    await deliverer.note([hook], wait=0)
    assert await deliverer.send_due([hook]) == 0
    (waiting,) = await hooks.deliveries(manager.store)
    assert (waiting.attempts, waiting.problem) == (1, "answered 500")
    assert await deliverer.send_due([hook]) == 0, "it is not due yet"
    assert await deliverer.deliver(hook, waiting)
    assert await hooks.deliveries(manager.store) == []
    assert got[0][0] == got[1][0]
    assert got[0][1]["type"] == "job.failed"
    assert got[0][1]["data"]["job_type"] == "ingestion"


async def test_410_disables(memory: AsyncJobManager) -> None:
    hook = await hooks.create(memory.store, "https://hooks.example.org/in")
    deliverer = deliverer_to(memory, lambda request: httpx.Response(410))
    await deliverer.note([hook], wait=0)
    await memory.cancel_job((await memory.create_job()).job_id)
    await deliverer.note([hook], wait=0)
    await deliverer.send_due([hook])
    (now,) = await hooks.all_hooks(memory.store)
    assert now.disabled is not None
    assert await hooks.deliveries(memory.store) == []


async def test_a_receiver_that_does_not_answer_holds_up_no_other(memory: AsyncJobManager) -> None:
    silent = await hooks.create(memory.store, "https://silent.example.org/in")
    other = await hooks.create(memory.store, "https://other.example.org/in")
    asked: list[str] = []
    taken = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["host"])
        if request.headers["host"].startswith("silent"):
            await taken.wait()  # were they sent one after the other, this would wait for ever
            raise httpx.ReadTimeout("no answer")
        if asked.count("other.example.org") == 3:
            taken.set()
        return httpx.Response(200)

    deliverer = deliverer_to(memory, answer)
    await deliverer.note([silent, other], wait=0)
    for _ in range(3):
        await memory.cancel_job((await memory.create_job()).job_id)
    await deliverer.note([silent, other], wait=0)
    assert await deliverer.send_due([silent, other]) == 3
    assert asked.count("silent.example.org") == 1, "the others are for when it answers again"
    assert {one.hook_id for one in await hooks.deliveries(memory.store)} == {silent.id}


class Endless(httpx.AsyncByteStream):
    """The body of an answer that has no end; after its first part it may fall silent."""

    def __init__(self, *, silent: bool) -> None:
        self.silent, self.sent = silent, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            if self.silent and self.sent:
                await asyncio.Event().wait()
            self.sent += 1
            yield b"." * 65_536
            await asyncio.sleep(0)


@pytest.mark.parametrize("silent", [False, True])
async def test_an_answer_without_an_end_holds_nothing_up(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    monkeypatch.setattr("milepost.web.delivering.ANSWER_WITHIN", 0.1 if silent else 600.0)
    hook = await hooks.create(memory.store, "https://hooks.example.org/in")
    body = Endless(silent=silent)
    deliverer = deliverer_to(memory, lambda request: httpx.Response(200, stream=body))
    await deliverer.note([hook], wait=0)
    await memory.cancel_job((await memory.create_job()).job_id)
    await deliverer.note([hook], wait=0)
    async with asyncio.timeout(20):
        assert await deliverer.send_due([hook]) == 1, "the status is the answer"
    assert body.sent < 100


async def test_a_receiver_that_never_answers_is_a_failed_attempt(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milepost.web.delivering.ANSWER_WITHIN", 0.1)

    async def answer(request: httpx.Request) -> httpx.Response:
        return await asyncio.Future[httpx.Response]()

    hook = await hooks.create(memory.store, "https://hooks.example.org/in")
    async with asyncio.timeout(20):
        told = await deliverer_to(memory, answer).post(hook, hooks.Delivery(hook.id, "msg_1", "{}", 0))
    assert told == (0, "no answer within 0.1 s")


async def test_a_name_that_is_not_ascii_is_a_name(memory: AsyncJobManager) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["host"])
        return httpx.Response(204)

    hook = await hooks.create(memory.store, "https://exämple.org:8443/in")
    told = await deliverer_to(memory, answer).post(hook, hooks.Delivery(hook.id, "msg_1", "{}", 0))
    assert told == (204, "answered 204")
    assert asked == ["xn--exmple-cua.org:8443"]


async def test_an_end_is_told_from_the_moment_that_a_webhook_is_made_and_none_of_before(
    memory: AsyncJobManager,
) -> None:
    async def ended() -> str:
        job = await memory.create_job()
        await memory.update_job(job.job_id, "completed")
        return job.job_id

    async with client_of(memory) as client:
        first = (await client.post("/api/webhooks", json={"url": "https://93.184.216.34/in"})).json()
        told = await ended()  # before the server has looked at its feed for the first time
        deliverer = deliverer_to(memory, lambda request: httpx.Response(200))
        await deliverer.note(await hooks.all_hooks(memory.store), wait=0)
        assert [one.message_id.split("_")[1] for one in await hooks.deliveries(memory.store)] == [told]
        await client.delete(f"/api/webhooks/{first['id']}")
        await ended()  # nobody wants to hear of this
        await client.post("/api/webhooks", json={"url": "https://93.184.216.34/in"})
        told = await ended()
        await deliverer.note(await hooks.all_hooks(memory.store), wait=0)
        assert [one.message_id.split("_")[1] for one in await hooks.deliveries(memory.store)] == [told]


async def test_what_is_removed_while_it_is_sent_stays_removed(memory: AsyncJobManager) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        assert await hooks.delete(memory.store, hook.id)
        return httpx.Response(410)

    hook = await hooks.create(memory.store, "https://hooks.example.org/in")
    await deliverer_to(memory, answer).deliver(hook, hooks.Delivery(hook.id, "msg_1", "{}", 0))
    assert await hooks.all_hooks(memory.store) == []


async def test_many_waiting_messages_are_counted_and_removed(memory: AsyncJobManager) -> None:
    made = [await hooks.create(memory.store, "https://hooks.example.org/in") for _ in range(2)]
    for hook in made:
        for number in range(1001):
            await hooks.keep(memory.store, hooks.Delivery(hook.id, f"msg_{number}", "{}", 0))
    async with client_of(memory) as client:
        listed = (await client.get("/api/webhooks")).json()["webhooks"]
        assert [one["waiting"] for one in listed] == [1001, 1001]
        for hook in made:
            await client.delete(f"/api/webhooks/{hook.id}")
    assert await hooks.deliveries(memory.store) == []


async def test_a_cursor_that_fell_out_of_the_feed_catches_up(memory: AsyncJobManager) -> None:
    hook = await hooks.create(memory.store, "https://hooks.example.org/in")
    deliverer = deliverer_to(memory, lambda request: httpx.Response(200))
    await deliverer.note([hook], wait=0)
    job = await memory.create_job()
    await memory.update_job(job.job_id, "completed")
    item = await memory.store.shelf_get(CURSOR)
    assert item is not None
    await deliverer._catch_up([hook], json.loads(item.value)["at"])
    await deliverer.note([hook], wait=0)
    assert [one.message_id.split("_")[1] for one in await hooks.deliveries(memory.store)] == [job.job_id]


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1",
                                     "0.0.0.0", "224.0.0.1", "100.64.0.1", "2002:7f00:1::", "64:ff9b::a00:1",
                                     "fec0::1", "::10.0.0.1"])  # fmt: skip
async def test_private_addresses_are_refused(address: str) -> None:
    assert not is_public(address)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(InvalidInput, match="not a public address"):
        await public_address(f"https://{host}/x")


async def test_the_calls(memory: AsyncJobManager) -> None:
    assert all(map(is_public, ("93.184.216.34", "2606:4700::1", "64:ff9b::5db8:d822", "2002:5db8:d822::1")))
    async with client_of(memory) as client:
        for url in ("http://93.184.216.34/", "https://u:p@93.184.216.34/", "https://localhost/", "ftp://x", "https://",
                    "https://93.184.216.34:99999/", "https://[::1", "https://93.184.216.34/\x01"):  # fmt: skip
            assert (await client.post("/api/webhooks", json={"url": url})).status_code == 422
        made = await client.post("/api/webhooks", json={"url": "https://93.184.216.34/in"})
        assert made.status_code == 201
        assert made.json()["secret"].startswith("whsec_")
        listed = (await client.get("/api/webhooks")).text
        assert made.json()["id"] in listed
        assert "whsec_" not in listed
        job = await memory.create_job()
        await memory.update_job(job.job_id, "completed")
        path = f"/api/webhooks/{made.json()['id']}"
        assert (await client.post(path + "/replay", json={})).json()["queued"] == 1
        assert (await client.delete(path)).status_code == 204
        assert (await client.delete(path)).status_code == 404
        assert await hooks.deliveries(memory.store) == []
