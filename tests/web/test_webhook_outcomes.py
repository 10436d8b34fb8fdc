"""What a webhook says of its deliveries that were not accepted, and that none of them is forgotten."""

from __future__ import annotations

import logging

import httpx
import pytest

from milepost import AsyncJobManager
from milepost.stores.protocol import Store
from milepost.web.webhooks import registry
from milepost.web.webhooks.registry import Delivery
from tests.web.conftest import client_of
from tests.web.test_webhooks import sender_to

URL = "https://hooks.example.org/in"


async def test_list_says_why_messages_wait_and_when_the_next_is_sent(
    memory: AsyncJobManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Regression: a receiver that refused each message was shown nowhere, neither in the list nor in the log."""
    caplog.set_level(logging.INFO, "milepost.webhooks")
    statuses = [500, 503, 200, 200]
    sender = sender_to(memory, lambda request: httpx.Response(statuses.pop(0)))
    hook = await registry.create(memory.store, URL)
    first, second = [Delivery(hook.id, f"msg_{n}", "{}", await memory.store.now()) for n in (1, 2)]
    for one in (first, second):
        await registry.save_delivery(memory.store, one)
    async with client_of(memory) as client:
        (shown,) = (await client.get("/api/webhooks")).json()["webhooks"]
        assert (shown["waiting"], shown["problem"], shown["next_at"]) == (2, None, None)
        assert not await sender.deliver(hook, first)
        assert not await sender.deliver(hook, second)
        (shown,) = (await client.get("/api/webhooks")).json()["webhooks"]
        later = await registry.deliveries(memory.store)
        assert (shown["waiting"], shown["problem"]) == (2, "responded with status 500")
        assert shown["next_at"] is not None
        for one in later:
            assert await sender.deliver(hook, one)
        (shown,) = (await client.get("/api/webhooks")).json()["webhooks"]
        assert (shown["waiting"], shown["problem"], shown["next_at"]) == (0, None, None)
    assert caplog.messages == [
        f"webhook {hook.id}: delivery msg_1 failed: responded with status 500; retrying in 5 s",
        f"webhook {hook.id}: deliveries are accepted again",
    ]


async def test_message_behind_a_thousand_that_wait_is_sent(memory: AsyncJobManager) -> None:
    """Regression: after an outage of the receiver, new messages were not sent until older ones had been accepted."""
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["webhook-id"])
        return httpx.Response(200)

    hook = await registry.create(memory.store, URL)
    now = await memory.store.now()
    for number in range(1001):
        due = now if number == 1000 else now + 3600_000_000
        await registry.save_delivery(memory.store, Delivery(hook.id, f"msg_{number:04}", "{}", due, attempts=1))
    assert await sender_to(memory, answer).send_due(hook) == 1
    assert sent == ["msg_1000"]


async def test_deleted_webhook_leaves_no_message_that_fails_meanwhile(manager: AsyncJobManager) -> None:
    """Regression: it was stored again for its retry, and stayed for seven days."""
    hook = await registry.create(manager.store, URL)
    await registry.save_delivery(manager.store, Delivery(hook.id, "msg_1", "{}", await manager.store.now()))

    async def answer(request: httpx.Request) -> httpx.Response:
        assert await registry.delete(manager.store, hook.id)
        return httpx.Response(500)

    assert await sender_to(manager, answer).send_due(hook) == 0
    assert await registry.deliveries(manager.store) == []


async def test_deleted_webhook_gets_no_message_for_a_later_end(manager: AsyncJobManager) -> None:
    """Regression: the sender had read the list of webhooks before, and stored a message that was never sent."""
    hook = await registry.create(manager.store, URL, registry.KINDS)
    kept = await registry.create(manager.store, URL, registry.KINDS)
    sender = sender_to(manager, lambda request: httpx.Response(200))
    await sender.read_feed([hook, kept])
    await manager.cancel_job((await manager.create_job()).job_id)
    assert await registry.delete(manager.store, hook.id)
    await sender.read_feed([hook, kept])
    assert [one.hook_id for one in await registry.deliveries(manager.store)] == [kept.id]


async def test_webhook_deleted_during_a_replay_leaves_no_message(
    manager: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = await registry.create(manager.store, URL)
    for _ in range(2):
        await manager.cancel_job((await manager.create_job()).job_id)
    save = registry.save_delivery

    async def save_after_delete(store: Store, delivery: Delivery) -> None:
        await registry.delete(store, hook.id)
        await save(store, delivery)

    monkeypatch.setattr(registry, "save_delivery", save_after_delete)
    async with client_of(manager) as client:
        assert (await client.post(f"/api/webhooks/{hook.id}/replay", json={})).status_code == 200
    assert await registry.deliveries(manager.store) == []
