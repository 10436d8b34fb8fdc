"""Webhooks: signed with a stable id, sent again until taken, ended by 410, never to a private address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
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
                                     "0.0.0.0", "224.0.0.1", "100.64.0.1"])  # fmt: skip
async def test_private_addresses_are_refused(address: str) -> None:
    assert not is_public(address)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(InvalidInput, match="not a public address"):
        await public_address(f"https://{host}/x")


async def test_the_calls(memory: AsyncJobManager) -> None:
    assert is_public("93.184.216.34")
    async with client_of(memory) as client:
        for url in ("http://93.184.216.34/", "https://u:p@93.184.216.34/", "https://localhost/", "ftp://x", "https://"):
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
