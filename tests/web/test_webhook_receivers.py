"""Receivers of webhooks that are slow: each delays only its own messages, which stay in order and are sent at least once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import SimpleNamespace

import httpx
import pytest

from milepost import AsyncJobManager
from milepost.manager import feed_follower
from milepost.stores.protocol import Store
from milepost.web.webhooks import delivery, registry
from milepost.web.webhooks.registry import Delivery, WebhookEndpoint
from tests.waiting import PATIENCE
from tests.web.test_webhooks import sender_to

SLOW, OTHER = "slow.example.org", "other.example.org"


class Receivers:
    """Receivers that note which messages they got. Those of a slow host are answered when `answer_slow` is set."""

    def __init__(self, slow_status: int = 200) -> None:
        self.slow_status = slow_status
        self.got: list[str] = []
        self.under_way = self.most_under_way = 0
        self.changed = asyncio.Condition()
        self.answer_slow = asyncio.Event()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            async with self.changed:
                self.got.append(request.headers["webhook-id"])
                self.changed.notify_all()
            if not request.headers["host"].endswith(SLOW):
                return httpx.Response(200)
            await self.answer_slow.wait()
            return httpx.Response(self.slow_status)
        finally:
            self.under_way -= 1

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition about the messages is true."""
        async with self.changed:
            await self.changed.wait_for(condition)


class Rounds:
    """Counts how often the sender has read the list of webhooks. It does not wait between two rounds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self._all_hooks = 0, registry.all_hooks
        monkeypatch.setattr(registry, "all_hooks", self._counted)
        monkeypatch.setattr(delivery, "POLL_INTERVAL", 0.0)

    async def _counted(self, store: Store) -> list[WebhookEndpoint]:
        self.count += 1
        return await self._all_hooks(store)

    async def pass_by(self, number: int) -> None:
        """Wait until this many more rounds are complete."""
        over = self.count + number + 1
        while self.count < over:
            await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no message of these tests fail because its receiver is slow."""
    monkeypatch.setattr(delivery, "RESPONSE_TIMEOUT", 1000.0)


async def create(store: Store, host: str, *message_ids: str) -> WebhookEndpoint:
    """Create a webhook with due deliveries."""
    hook = await registry.create(store, f"https://{host}/in")
    for message_id in message_ids:
        await registry.save_delivery(store, Delivery(hook.id, message_id, "{}", await store.now()))
    return hook


async def test_slow_receiver_does_not_delay_later_messages_to_others(manager: AsyncJobManager) -> None:
    """Regression: messages that came while a receiver had not responded waited until it did, for up to 10 s each."""
    await delivery.begin(manager.store)
    slow, other = await create(manager.store, SLOW, "msg_slow"), await create(manager.store, OTHER)
    receivers, jobs = Receivers(), list[str]()
    async with asyncio.timeout(PATIENCE), sender_to(manager, receivers):
        await receivers.until(lambda: receivers.got == ["msg_slow"])
        for _ in range(3):
            jobs.append((await manager.create_job()).job_id)
            await manager.cancel_job(jobs[-1])
            await receivers.until(lambda: len(receivers.got) == 1 + len(jobs))
    assert [message_id.split("_")[1] for message_id in receivers.got] == ["slow", *jobs]
    assert len(await registry.deliveries(manager.store, slow.id)) == 4
    assert len(await registry.deliveries(manager.store, other.id)) <= 1, "the last answer may not be noted yet"


async def test_receiver_gets_one_message_at_a_time_in_order(manager: AsyncJobManager) -> None:
    hook = await create(manager.store, SLOW, "msg_1")
    receivers = Receivers()
    async with asyncio.timeout(PATIENCE), sender_to(manager, receivers):
        await receivers.until(lambda: receivers.got == ["msg_1"])
        for message_id in ("msg_3", "msg_2"):
            await registry.save_delivery(manager.store, Delivery(hook.id, message_id, "{}", await manager.store.now()))
        receivers.answer_slow.set()
        await receivers.until(lambda: len(receivers.got) == 3)
    assert receivers.got == ["msg_1", "msg_2", "msg_3"]
    assert receivers.most_under_way == 1


async def test_message_that_came_during_a_slow_response_is_sent_after_it(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "POLL_INTERVAL", 1000.0)
    monkeypatch.setattr(feed_follower, "FEED_TIMEOUT", 1000.0)
    await delivery.begin(memory.store)
    await create(memory.store, SLOW, "msg_1")
    receivers = Receivers()
    async with asyncio.timeout(PATIENCE), sender_to(memory, receivers):
        await receivers.until(lambda: receivers.got == ["msg_1"])
        await memory.cancel_job((await memory.create_job()).job_id)
        while len(await registry.deliveries(memory.store)) < 2:
            await asyncio.sleep(0)
        for _ in range(50):  # the sender begins to wait for news
            await asyncio.sleep(0)
        receivers.answer_slow.set()
        await receivers.until(lambda: len(receivers.got) == 2)
    assert receivers.most_under_way == 1


async def test_failed_message_holds_back_only_its_own_receiver(memory: AsyncJobManager) -> None:
    slow = await create(memory.store, SLOW, "msg_1", "msg_2")
    receivers = Receivers(slow_status=500)
    receivers.answer_slow.set()
    assert await sender_to(memory, receivers).send_due(slow) == 0
    assert receivers.got == ["msg_1"], "the others are for when it answers again"
    assert len(await registry.deliveries(memory.store)) == 2


async def test_number_of_receivers_at_once_is_limited(memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MAX_RECEIVERS_AT_ONCE", 2)
    rounds, receivers = Rounds(monkeypatch), Receivers()
    for number in range(4):
        await create(memory.store, f"{number}.{SLOW}", f"msg_{number}")
    async with asyncio.timeout(PATIENCE), sender_to(memory, receivers):
        await receivers.until(lambda: receivers.under_way == 2)
        await rounds.pass_by(3)
        receivers.answer_slow.set()
        await receivers.until(lambda: len(receivers.got) == 4)
    assert sorted(receivers.got) == ["msg_0", "msg_1", "msg_2", "msg_3"]
    assert receivers.most_under_way == 2


async def test_sender_that_lost_the_lead_sends_no_further_message(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that was held up must not send what another one sends by now."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(delivery, "time", clock)
    rounds, receivers = Rounds(monkeypatch), Receivers()
    await create(memory.store, SLOW, "msg_1", "msg_2")
    async with asyncio.timeout(PATIENCE), sender_to(memory, receivers):
        await receivers.until(lambda: receivers.got == ["msg_1"])
        await rounds.pass_by(3)
        await memory.store.kv_put(delivery.LEADER, "another server")
        clock.now += delivery.LEADER_LEASE_SECONDS
        receivers.answer_slow.set()
        await rounds.pass_by(3)
    assert receivers.got == ["msg_1"]


async def test_receiver_that_is_gone_gets_no_further_message(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of webhooks was read before the receiver responded with 410."""
    rounds, receivers = Rounds(monkeypatch), Receivers(slow_status=410)
    await create(memory.store, SLOW, "msg_1", "msg_2")
    async with asyncio.timeout(PATIENCE), sender_to(memory, receivers):
        await receivers.until(lambda: receivers.got == ["msg_1"])
        await rounds.pass_by(3)
        receivers.answer_slow.set()
        while await registry.deliveries(memory.store):
            await rounds.pass_by(1)
    assert receivers.got == ["msg_1"]
    (hook,) = await registry.all_hooks(memory.store)
    assert hook.disabled == "the receiver responded with 410 Gone"


async def test_unexpected_error_of_one_receiver_stops_no_deliveries(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rounds, receivers = Rounds(monkeypatch), Receivers()
    broken = await create(memory.store, "broken.example.org", "msg_broken")
    await create(memory.store, OTHER, "msg_1")
    real = registry.all_deliveries

    def all_deliveries(store: Store, hook_id: str = "") -> AsyncGenerator[Delivery]:
        if hook_id == broken.id and broken_reads.append(hook_id) is None and len(broken_reads) == 1:
            raise RuntimeError("a defect")
        return real(store, hook_id)

    broken_reads: list[str] = []
    monkeypatch.setattr(registry, "all_deliveries", all_deliveries)
    async with asyncio.timeout(PATIENCE), sender_to(memory, receivers):
        await receivers.until(lambda: sorted(receivers.got) == ["msg_1", "msg_broken"])
        await rounds.pass_by(1)
    assert caplog.messages == [f"unexpected error in deliveries of webhook {broken.id}; continuing"]
