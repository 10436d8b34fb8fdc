"""The lead of the server that sends webhooks: given up at its shutdown, and never that of another server."""

from __future__ import annotations

import asyncio

import pytest

from milepost import AsyncJobManager
from milepost.core.errors import StoreUnavailableError
from milepost.stores.protocol import KeyValue
from milepost.web.webhooks import delivery
from milepost.web.webhooks.delivery import LEADER
from tests.waiting import PATIENCE
from tests.web.test_webhook_receivers import OTHER, SLOW, Receivers, create
from tests.web.test_webhooks import sender_to

pytestmark = pytest.mark.timing


@pytest.fixture(autouse=True)
def long_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the lead end in no test because its lease ends."""
    monkeypatch.setattr(delivery, "LEADER_LEASE_SECONDS", 1000.0)
    monkeypatch.setattr(delivery, "RESPONSE_TIMEOUT", 1000.0)


async def test_next_server_sends_at_once_after_a_shutdown(manager: AsyncJobManager) -> None:
    """Regression: after a deploy, messages waited for the end of the lease of the server that had stopped, up to 30 s.

    The message that was under way at the shutdown is sent again.
    """
    await create(manager.store, SLOW, "msg_1")
    first, second = Receivers(), Receivers()
    async with asyncio.timeout(PATIENCE):
        async with sender_to(manager, first):
            await first.until(lambda: first.got == ["msg_1"])
        async with sender_to(manager, second):
            await second.until(lambda: second.got == ["msg_1"])
    assert first.under_way == second.under_way == 0


async def test_sender_that_is_started_again_takes_the_lead_again(manager: AsyncJobManager) -> None:
    await create(manager.store, OTHER, "msg_1")
    receivers = Receivers()
    sender = sender_to(manager, receivers)
    async with asyncio.timeout(PATIENCE):
        async with sender:
            await receivers.until(lambda: receivers.got == ["msg_1"])
        assert await manager.store.kv_get(LEADER) is None
        async with sender:
            while await manager.store.kv_get(LEADER) is None:
                await asyncio.sleep(0)
        assert await manager.store.kv_get(LEADER) is None


async def test_lead_that_another_server_takes_meanwhile_stays(
    manager: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(manager.store, OTHER, "msg_1")
    receivers, store, read = Receivers(), manager.store, manager.store.kv_get

    async def read_too_late(key: str) -> KeyValue | None:
        item = await read(key)
        monkeypatch.setattr(store, "kv_get", read)
        await store.kv_put(key, "another server")
        return item

    async with asyncio.timeout(PATIENCE), sender_to(manager, receivers):
        await receivers.until(lambda: receivers.got == ["msg_1"])
        monkeypatch.setattr(store, "kv_get", read_too_late)
    item = await read(LEADER)
    assert item is not None
    assert item.value == "another server"


@pytest.mark.parametrize("hangs", [False, True])
async def test_shutdown_does_not_wait_for_a_store_that_is_down(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, hangs: bool
) -> None:
    monkeypatch.setattr(delivery, "GIVE_UP_TIMEOUT", 0.0 if hangs else PATIENCE)
    await create(memory.store, OTHER, "msg_1")
    receivers = Receivers()

    async def away(key: str) -> KeyValue | None:
        if hangs:
            await asyncio.Event().wait()
        raise StoreUnavailableError("away")

    async with asyncio.timeout(PATIENCE), sender_to(memory, receivers):
        await receivers.until(lambda: receivers.got == ["msg_1"])
        monkeypatch.setattr(memory.store, "kv_get", away)
    why = "no response within 0 s" if hangs else "away"
    assert caplog.messages == [f"webhooks: the lead of this server was not given up and ends within 1000 s: {why}"]
