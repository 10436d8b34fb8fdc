"""Webhooks: signed with a stable id, retried until accepted, disabled by 410, never sent to a private address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from milepost import AsyncJobManager
from milepost.core.errors import StoreUnavailableError
from milepost.core.transitions import plan_complete, plan_fail, plan_mark_stale, plan_start
from milepost.manager.feed_follower import FeedFollower
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Claim, Store, Write
from milepost.web.webhooks import delivery, registry
from milepost.web.webhooks.addresses import is_public
from milepost.web.webhooks.delivery import CURSOR, WebhookSender
from tests.waiting import PATIENCE
from tests.web.conftest import client_of

pytestmark = pytest.mark.timing

Receiver = Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


def sender_to(manager: AsyncJobManager, answer: Receiver) -> WebhookSender:
    async def resolve(url: str) -> str:
        return "203.0.113.7"

    def connect() -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(answer))

    return WebhookSender(FeedFollower(lambda: manager.store), resolve=resolve, connect=connect)


async def stall(manager: AsyncJobManager, job_id: str, job_type: str = "upload") -> None:
    await manager.create_job(job_id, job_type, stale_after=0.01)
    await manager.update_job(job_id, "running")
    plan = plan_mark_stale(new_operation_id(), error="late", failure="{}", reason="no update for 60 s")
    while not (await manager.store.apply([Write(job_id, plan)])).outcomes[0].accepted:
        await asyncio.sleep(0.01)


async def started(manager: AsyncJobManager) -> tuple[str, str]:
    """Create and claim a job of the type "sync"; return its id and the token of its run."""
    job = await manager.enqueue("sync")
    start = plan_start(new_operation_id(), nonce="n", lease=10**7, worker="w1")
    found = await manager.store.apply([], Claim("w", {"sync": None}, (start,), new_operation_id()))
    return job.job_id, found.claimed[0].record["token"]


async def sent_types(manager: AsyncJobManager) -> list[tuple[str, str]]:
    bodies = [json.loads(waiting.body) for waiting in await registry.deliveries(manager.store)]
    return sorted((body["type"], body["data"]["job_id"]) for body in bodies)


async def test_delivery_is_signed_and_retried_with_the_same_id(manager: AsyncJobManager) -> None:
    got: list[tuple[str, Any]] = []
    statuses = [500, 200]

    def answer(request: httpx.Request) -> httpx.Response:
        body = Webhook(hook.secret).verify(request.content, dict(request.headers))
        got.append((request.headers["webhook-id"], body))
        assert request.url.host == "203.0.113.7"
        assert request.headers["host"] == "hooks.example.org"
        return httpx.Response(statuses.pop(0))

    hook = await registry.create(manager.store, "https://hooks.example.org/in", ("failed",), "type:ingestion")
    sender = sender_to(manager, answer)
    await sender.read_feed([hook])
    for kind, status in (("ingestion", "failed"), ("ingestion", "completed"), ("other", "failed")):
        job = await manager.create_job(job_type=kind)
        await manager.update_job(job.job_id, status, error="no" if status == "failed" else None)
    await sender.read_feed([hook])
    await sender.read_feed([hook])
    assert await sender.send_due(hook) == 0
    (waiting,) = await registry.deliveries(manager.store)
    assert (waiting.attempts, waiting.problem) == (1, "responded with status 500")
    assert await sender.send_due(hook) == 0, "it is not due yet"
    assert await sender.deliver(hook, waiting)
    assert await registry.deliveries(manager.store) == []
    assert got[0][0] == got[1][0]
    assert got[0][1]["type"] == "job.failed"
    assert got[0][1]["data"]["job_type"] == "ingestion"


async def test_question_is_sent_to_the_webhooks_that_want_it(manager: AsyncJobManager) -> None:
    hook = await registry.create(manager.store, "https://hooks.example.org/in", ("asked",))
    ends = await registry.create(manager.store, "https://hooks.example.org/ends")
    sender = sender_to(manager, lambda request: httpx.Response(200))
    await sender.read_feed([hook, ends])
    async with manager.track("report") as run:
        await manager.answer(run.job_id, "early", True)
        assert await run.ask("early", "Answered already?", bool) is True
        assert await run.ask("publish", "Publish?", bool, expires=0.01, default=False) is False
        await sender.read_feed([hook, ends])
        (waiting,) = await registry.deliveries(manager.store)
    body = json.loads(waiting.body)
    assert (waiting.hook_id, body["type"], body["data"]["job_id"]) == (hook.id, "job.asked", run.job_id)
    assert (body["data"]["question"]["key"], body["data"]["question"]["prompt"]) == ("publish", "Publish?")


async def test_stalled_job_is_sent_to_the_webhooks_that_want_it(memory: AsyncJobManager) -> None:
    hook = await registry.create(memory.store, "https://hooks.example.org/in", ("stalled",), "type:batch,upload")
    ends = await registry.create(memory.store, "https://hooks.example.org/ends")
    sender = sender_to(memory, lambda request: httpx.Response(200))
    await sender.read_feed([hook, ends])
    for job_type in ("upload", "other"):
        await stall(memory, f"a-{job_type}", job_type)
    await sender.read_feed([hook, ends])
    (waiting,) = await registry.deliveries(memory.store)
    body = json.loads(waiting.body)
    assert (waiting.hook_id, body["type"], body["data"]["job_id"]) == (hook.id, "job.stalled", "a-upload")
    assert body["data"]["stalled"] == "no update for 60 s"


async def test_job_that_stalled_and_continued_is_not_sent_as_failed(memory: AsyncJobManager) -> None:
    """Regression: the event of a stall that had been over when it was read was sent as `job.failed`."""
    hook = await registry.create(memory.store, "https://hooks.example.org/in", registry.KINDS)
    sender = sender_to(memory, lambda request: httpx.Response(200))
    await sender.read_feed([hook])
    await stall(memory, "a")
    await memory.update_job("a", progress=0.5)
    await stall(memory, "b")
    await memory.update_job("b", "completed")
    await sender.read_feed([hook])
    assert await sent_types(memory) == [("job.completed", "b")]


async def test_new_webhook_gets_no_earlier_stall(memory: AsyncJobManager) -> None:
    """Regression: the cursor stays while no webhook exists, and the next webhook got the stalls since then."""
    sender = sender_to(memory, lambda request: httpx.Response(200))
    await sender.read_feed([])
    await stall(memory, "earlier")
    hook = await registry.create(memory.store, "https://hooks.example.org/in", ("stalled",))
    await stall(memory, "later")
    await sender.read_feed([hook])
    assert await sent_types(memory) == [("job.stalled", "later")]


async def test_store_error_during_collection_loses_no_delivery(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event counted as seen although its delivery was not stored, so the next read skipped it."""
    hook = await registry.create(memory.store, "https://hooks.example.org/in")
    sender = sender_to(memory, lambda request: httpx.Response(200))
    await sender.read_feed([hook])
    await memory.cancel_job((await memory.create_job()).job_id)

    async def away(job_id: str) -> None:
        raise StoreUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(memory.store, "get", away)
        with pytest.raises(StoreUnavailableError):
            await sender.read_feed([hook])
    await sender.read_feed([hook])
    assert len(await registry.deliveries(memory.store)) == 1


async def test_sender_without_webhooks_waits_until_this_server_creates_one(
    manager: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read the list of webhooks every two seconds, on every server, for ever."""
    reads, sent, all_hooks = list[int](), asyncio.Event(), registry.all_hooks

    async def counted(store: Store) -> list[registry.WebhookEndpoint]:
        found = await all_hooks(store)
        reads.append(len(found))
        return found

    def answer(request: httpx.Request) -> httpx.Response:
        sent.set()
        return httpx.Response(200)

    monkeypatch.setattr(registry, "all_hooks", counted)
    monkeypatch.setattr(delivery, "POLL_INTERVAL", 0.0)
    monkeypatch.setattr(delivery, "IDLE_INTERVAL", 1000.0)
    async with asyncio.timeout(PATIENCE), sender_to(manager, answer) as sender:
        while not reads:
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert reads == [0]
        await delivery.begin(manager.store)
        await registry.create(manager.store, "https://hooks.example.org/in")
        sender.wake()
        await manager.cancel_job((await manager.create_job()).job_id)
        await sent.wait()


async def test_410_disables_the_webhook(memory: AsyncJobManager) -> None:
    hook = await registry.create(memory.store, "https://hooks.example.org/in")
    sender = sender_to(memory, lambda request: httpx.Response(410))
    await sender.read_feed([hook])
    await memory.cancel_job((await memory.create_job()).job_id)
    await sender.read_feed([hook])
    await sender.send_due(hook)
    (now,) = await registry.all_hooks(memory.store)
    assert now.disabled is not None
    assert await registry.deliveries(memory.store) == []


class Endless(httpx.AsyncByteStream):
    """The body of an endless response, which may stall after its first part."""

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
async def test_endless_response_does_not_block_delivery(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    monkeypatch.setattr("milepost.web.webhooks.delivery.RESPONSE_TIMEOUT", 0.1 if silent else 600.0)
    hook = await registry.create(memory.store, "https://hooks.example.org/in")
    body = Endless(silent=silent)
    sender = sender_to(memory, lambda request: httpx.Response(200, stream=body))
    await sender.read_feed([hook])
    await memory.cancel_job((await memory.create_job()).job_id)
    await sender.read_feed([hook])
    async with asyncio.timeout(PATIENCE):
        assert await sender.send_due(hook) == 1, "the status is the answer"
    assert body.sent < 100


async def test_response_timeout_is_a_failed_attempt(memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.web.webhooks.delivery.RESPONSE_TIMEOUT", 0.1)

    async def answer(request: httpx.Request) -> httpx.Response:
        return await asyncio.Future[httpx.Response]()

    hook = await registry.create(memory.store, "https://hooks.example.org/in")
    async with asyncio.timeout(PATIENCE):
        outcome = await sender_to(memory, answer).post(hook, registry.Delivery(hook.id, "msg_1", "{}", 0))
    assert outcome == (0, "no response within 0.1 s")


async def test_international_host_name_is_accepted(memory: AsyncJobManager) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["host"])
        return httpx.Response(204)

    hook = await registry.create(memory.store, "https://exämple.org:8443/in")
    outcome = await sender_to(memory, answer).post(hook, registry.Delivery(hook.id, "msg_1", "{}", 0))
    assert outcome == (204, "")
    assert asked == ["xn--exmple-cua.org:8443"]


async def test_webhook_gets_only_ends_after_its_creation(memory: AsyncJobManager) -> None:
    async def ended() -> str:
        job = await memory.create_job()
        await memory.update_job(job.job_id, "completed")
        return job.job_id

    async with client_of(memory) as client:
        first = (await client.post("/api/webhooks", json={"url": "https://93.184.216.34/in"})).json()
        job_id = await ended()  # before the server's first read of the feed
        sender = sender_to(memory, lambda request: httpx.Response(200))
        await sender.read_feed(await registry.all_hooks(memory.store))
        assert [one.message_id.split("_")[1] for one in await registry.deliveries(memory.store)] == [job_id]
        await client.delete(f"/api/webhooks/{first['id']}")
        await ended()  # no webhook wants this one
        await client.post("/api/webhooks", json={"url": "https://93.184.216.34/in"})
        job_id = await ended()
        await sender.read_feed(await registry.all_hooks(memory.store))
        assert [one.message_id.split("_")[1] for one in await registry.deliveries(memory.store)] == [job_id]


async def test_webhook_removed_during_delivery_stays_removed(memory: AsyncJobManager) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        assert await registry.delete(memory.store, hook.id)
        return httpx.Response(410)

    hook = await registry.create(memory.store, "https://hooks.example.org/in")
    await sender_to(memory, answer).deliver(hook, registry.Delivery(hook.id, "msg_1", "{}", 0))
    assert await registry.all_hooks(memory.store) == []


async def test_pending_deliveries_are_counted_and_removed(memory: AsyncJobManager) -> None:
    made = [await registry.create(memory.store, "https://hooks.example.org/in") for _ in range(2)]
    for hook in made:
        for number in range(1001):
            await registry.save_delivery(memory.store, registry.Delivery(hook.id, f"msg_{number}", "{}", 0))
    async with client_of(memory) as client:
        listed = (await client.get("/api/webhooks")).json()["webhooks"]
        assert [one["waiting"] for one in listed] == [1001, 1001]
        for hook in made:
            await client.delete(f"/api/webhooks/{hook.id}")
    assert await registry.deliveries(memory.store) == []


async def test_end_before_a_retry_is_delivered(manager: AsyncJobManager) -> None:
    """A job that failed and was retried before the feed was read sent no `failed`. A deleted one has no more data to send."""
    hook = await registry.create(manager.store, "https://hooks.example.org/in", ("failed", "cancelled"), "type:sync")
    sender = sender_to(manager, lambda request: httpx.Response(200))
    await sender.read_feed([hook])
    job_id, token = await started(manager)
    fail = plan_fail(new_operation_id(), token, error="no", failure="{}", report={"message": "half"})
    await manager.store.apply([Write(job_id, fail)])
    failed_job = await manager.store.get(job_id)
    assert failed_job is not None
    await manager.retry_job(job_id)
    await manager.cancel_job(job_id)
    await manager.retry_job(job_id)
    deleted = await manager.enqueue("sync")
    await manager.cancel_job(deleted.job_id)
    await manager.delete_job(deleted.job_id)
    await sender.read_feed([hook])
    await sender.read_feed([hook])
    messages = [json.loads(one.body) for one in await registry.deliveries(manager.store)]
    assert sorted(one["type"] for one in messages) == ["job.cancelled", "job.failed"]
    failed = next(one["data"] for one in messages if one["type"] == "job.failed")
    assert (failed["status"], failed["error"], failed["message"], failed["worker"]) == ("failed", "no", "half", "w1")
    assert datetime.fromisoformat(failed["completed_at"]) == failed_job.completed_at


async def test_end_says_how_many_children_are_open(manager: AsyncJobManager) -> None:
    hook = await registry.create(manager.store, "https://hooks.example.org/in", ("completed",))
    sender = sender_to(manager, lambda request: httpx.Response(200))
    await sender.read_feed([hook])
    job_id, token = await started(manager)
    plan = plan_complete(new_operation_id(), token, None, {}, open_children="12")
    await manager.store.apply([Write(job_id, plan)])
    await sender.read_feed([hook])
    (message,) = [json.loads(one.body)["data"] for one in await registry.deliveries(manager.store)]
    assert (message["open_children"], message["activity"]) == (12, "completed with 12 open children")


async def test_lost_cursor_catches_up_from_records(memory: AsyncJobManager) -> None:
    hook = await registry.create(memory.store, "https://hooks.example.org/in")
    sender = sender_to(memory, lambda request: httpx.Response(200))
    await sender.read_feed([hook])
    job = await memory.create_job()
    await memory.update_job(job.job_id, "completed")
    item = await memory.store.kv_get(CURSOR)
    assert item is not None
    await sender._catch_up([hook], json.loads(item.value)["at"])
    await sender.read_feed([hook])
    assert [one.message_id.split("_")[1] for one in await registry.deliveries(memory.store)] == [job.job_id]


async def test_webhook_routes(memory: AsyncJobManager) -> None:
    assert all(map(is_public, ("93.184.216.34", "2606:4700::1", "64:ff9b::5db8:d822", "2002:5db8:d822::1")))
    async with client_of(memory) as client:
        for url in ("http://93.184.216.34/", "https://u:p@93.184.216.34/", "https://:p@93.184.216.34/", "https://localhost/", "ftp://x", "https://",
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
        assert await registry.deliveries(memory.store) == []
