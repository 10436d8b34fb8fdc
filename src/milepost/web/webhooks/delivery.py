"""Deliver webhooks as Standard Webhooks: signed, with a stable id, retried with backoff, and disabled by status 410.

One server per store is the leader. It follows the feed from a durable cursor, stores deliveries, and sends each until
it is accepted. The cursor moves only after the deliveries are stored, so every message is sent at least once. New events
come from the follower of this process; the feed itself is read only from a cursor that is behind it. Each receiver has a
task of its own, which sends its messages in order, so that a slow receiver delays only these.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import urlsplit

from milepost.core.errors import InvalidInputError, StoreError
from milepost.core.events import Event, SeenEvents
from milepost.core.job import Job
from milepost.core.serialization import to_micros
from milepost.manager.feed_follower import FEED_LIMIT, FeedFollower, FeedQueue
from milepost.query.filters import parse_filter
from milepost.stores.protocol import Select, Store
from milepost.stores.query import Query, find
from milepost.web.webhooks import registry
from milepost.web.webhooks.addresses import open_client, public_address
from milepost.web.webhooks.messages import event_message, job_at_end, message_for
from milepost.web.webhooks.registry import Delivery, WebhookEndpoint

log = logging.getLogger("milepost.webhooks")
log.addHandler(logging.NullHandler())

CURSOR, LEADER = "webhooks/cursor", "webhooks/leader"
LEADER_LEASE_SECONDS = 30.0
GIVE_UP_TIMEOUT = 2.0
"""How long the end of a server waits for the store to give up the lead, in seconds."""
POLL_INTERVAL = 2.0
IDLE_INTERVAL = 30.0
"""Seconds between looks for a first webhook. The server that creates one looks at once (`wake`), and sends."""
RETRY_DELAYS = (5.0, 60.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0)
"""Seconds before each retry. After the last one the delivery is dropped."""
RESPONSE_TIMEOUT = 10.0
MAX_RESPONSE_BYTES = 65_536
"""How much of a response is read so that its connection can be reused. The content is ignored."""
SEND_SECONDS = 5.0
"""Seconds of sending to one receiver after which the lead is checked again. With one more response timeout this is at most
half of the leader's lease.
"""
MAX_RECEIVERS_AT_ONCE = 50
"""How many receivers are sent to at the same time."""

Resolve = Callable[[str], Awaitable[str]]


async def begin(store: Store) -> None:
    """Start following the feed now, unless it is already followed."""
    start = (await store.feed(None)).position
    await store.kv_put(CURSOR, json.dumps({"position": start, "at": await store.now()}), version=0)


class WebhookSender:
    """Follows the feed and sends, while this server is the one of its store that does."""

    def __init__(
        self, follower: FeedFollower, *, resolve: Resolve = public_address, connect: Callable[[], Any] = open_client
    ) -> None:
        self._follower = follower
        self._store = follower.store
        self._me = secrets.token_hex(8)
        self._resolve = resolve
        self._connect = connect
        self._task: asyncio.Task[None] | None = None
        self._leader_until, self._may_lead = 0.0, False
        self._seen = SeenEvents()
        self._reset()
        self._failing: set[str] = set()
        self.sent = self.failed = 0

    def _reset(self) -> None:
        """Forget what belongs to an event loop, perhaps an earlier one."""
        self._queue, self._is_behind, self._wake = FeedQueue(), True, asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_RECEIVERS_AT_ONCE)
        self._to_check: dict[str, WebhookEndpoint] = {}
        self._sending: set[str] = set()

    async def __aenter__(self) -> WebhookSender:
        self._reset()
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._follower.unsubscribe(self._queue)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._may_lead:
            await self._give_up_lead()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as receivers:
            while True:
                interval = POLL_INTERVAL
                try:
                    self._wake.clear()
                    known = await registry.all_hooks(self._store())
                    if not known:
                        interval = IDLE_INTERVAL
                    elif await self._lead():
                        self._begin_sending(known, receivers)
                        await asyncio.sleep(0)  # a memory store never suspends; let the tasks run
                        await self._follower.subscribe(self._queue)
                        await self._collect(known)
                        continue
                except StoreError:
                    pass  # the follower logs it
                except Exception:
                    # A defect must not stop deliveries.
                    log.exception("unexpected error in webhook delivery; continuing")
                self._follower.unsubscribe(self._queue)
                self._is_behind = True
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), interval)

    def wake(self) -> None:
        """Look for webhooks now, because this server has created one."""
        self._wake.set()

    async def _lead(self) -> bool:
        """Return whether this server is the leader. Take the lead if no server has it."""
        if self._is_leader:
            return True
        store = self._store()
        item = await store.kv_get(LEADER)
        if item is not None and item.value != self._me:
            return False
        version = item.version if item is not None else 0
        self._may_lead = True  # also if the reply of the store does not come
        if await store.kv_put(LEADER, self._me, version=version, ttl=LEADER_LEASE_SECONDS) is None:
            return False
        self._leader_until = time.monotonic() + LEADER_LEASE_SECONDS
        return True

    async def _give_up_lead(self) -> None:
        """Let another server lead now, not only when the lease of this one ends. Nothing is being sent any more."""
        self._leader_until, self._may_lead = 0.0, False
        store = self._store()
        try:
            async with asyncio.timeout(GIVE_UP_TIMEOUT):
                item = await store.kv_get(LEADER)
                if item is not None and item.value == self._me:
                    # A delete has no version, and another server may have the lead by now.
                    await store.kv_put(LEADER, self._me, version=item.version, ttl=0)
        except (StoreError, TimeoutError) as error:
            why = f"no response within {GIVE_UP_TIMEOUT:g} s" if isinstance(error, TimeoutError) else error
            log.warning(
                "webhooks: the lead of this server was not given up and ends within %g s: %s", LEADER_LEASE_SECONDS, why
            )

    @property
    def _is_leader(self) -> bool:
        """Whether this server is the leader for long enough to send for `SEND_SECONDS`."""
        return time.monotonic() < self._leader_until - LEADER_LEASE_SECONDS / 2

    def _begin_sending(self, known: list[WebhookEndpoint], receivers: asyncio.TaskGroup) -> None:
        """Let the task of each receiver look for due deliveries: the one that is sending, once more after that."""
        for hook in known:
            self._to_check[hook.id] = hook
            if hook.id not in self._sending:
                self._sending.add(hook.id)
                receivers.create_task(self._send_while_asked(hook.id))

    async def _send_while_asked(self, hook_id: str) -> None:
        try:
            while (hook := self._to_check.pop(hook_id, None)) is not None:
                async with self._slots:
                    if not self._is_leader:
                        return
                    await self.send_due(hook)
        except StoreError:
            await asyncio.sleep(POLL_INTERVAL)  # the follower logs it
        except Exception:
            # A defect must not stop deliveries.
            log.exception("unexpected error in deliveries of webhook %s; continuing", hook_id)
            await asyncio.sleep(POLL_INTERVAL)
        finally:
            self._sending.discard(hook_id)

    async def _collect(self, known: list[WebhookEndpoint]) -> None:
        """Store the deliveries for new events: from the cursor up to now, then as the follower reports them."""
        if self._is_behind:
            self._is_behind = not await self.read_feed(known)
            return
        news = await self._queue.take(POLL_INTERVAL)
        self._is_behind = True  # until the cursor is moved
        if news.lost:
            return
        if news.events:
            age = time.monotonic() - news.began_at
            read_at = await self._store().now() - int(age * 1_000_000)
            await self._store_deliveries(known, news.events)
            await self._move_cursor(news.position, read_at)
        self._is_behind = False

    async def read_feed(self, known: list[WebhookEndpoint]) -> bool:
        """Read the feed from the cursor on, and store the deliveries for its events. Return whether that was its end."""
        store = self._store()
        item = await store.kv_get(CURSOR)
        now = await store.now()
        if item is None:
            await begin(store)
            return False
        cursor = json.loads(item.value)
        news = await store.feed(cursor["position"], limit=FEED_LIMIT)
        if news.lost:
            await self._catch_up(known, int(cursor["at"]))
        await self._store_deliveries(known, news.events)
        if news.events or news.lost:
            await self._move_cursor(news.position, now)
        return len(news.events) < FEED_LIMIT

    async def _store_deliveries(self, known: list[WebhookEndpoint], events: list[Event]) -> None:
        try:
            for event in filter(self._seen.is_new, events):
                if event.kind not in registry.KINDS or (job := await self._store().get(event.job_id)) is None:
                    continue
                if event.kind in ("asked", "stalled"):
                    if event.kind == "asked" or job.stalled is not None:
                        at = None if event.at is None else to_micros(event.at, "at")
                        await self._enqueue(known, job, event.kind, at, event_message(job, event))
                elif (ended := job_at_end(job, event)) is not None:
                    await self._enqueue_end(known, ended)
        except BaseException:
            self._seen = SeenEvents()  # the same events are read again
            raise

    async def _move_cursor(self, position: str | None, at: int) -> None:
        """Continue at a position after a restart. Every end before `at` has been handled."""
        await self._store().kv_put(CURSOR, json.dumps({"position": position, "at": at}))

    async def _catch_up(self, known: list[WebhookEndpoint], since: int) -> None:
        """Find jobs that ended since the cursor by their records, because the feed no longer has those events.

        Questions and stalled jobs among them are not sent.
        """
        cursor: str | None = None
        ended = Query(Select(statuses=registry.ENDS), (lambda job: _ended_at(job) >= since,))
        while True:
            page = await find(self._store(), ended, 500, cursor)
            for job in page.jobs:
                await self._enqueue_end(known, job)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _enqueue_end(self, known: list[WebhookEndpoint], job: Job) -> None:
        await self._enqueue(known, job, job.status.value, _ended_at(job), message_for(job))

    async def _enqueue(
        self, known: list[WebhookEndpoint], job: Job, kind: str, at: int | None, message: tuple[str, str]
    ) -> None:
        """Store a message about a job for the webhooks that want its kind, and are not newer than what it reports.

        The cursor does not move while there is no webhook, so events may be older than the first one.
        """
        now = await self._store().now()
        for hook in known:
            wanted = hook.disabled is None and kind in hook.events and (at is None or at >= hook.created)
            if wanted and parse_filter(hook.q, now=now).query.matches(job):
                await registry.save_delivery(self._store(), Delivery(hook.id, *message, now), only_if_absent=True)

    async def send_due(self, hook: WebhookEndpoint) -> int:
        """Send due deliveries to one receiver in order until one fails. Return how many were accepted."""
        store, taken, client = self._store(), 0, None
        now, until = await store.now(), time.monotonic() + SEND_SECONDS
        async with AsyncExitStack() as stack, aclosing(registry.all_deliveries(store, hook.id)) as pending:
            async for delivery in pending:
                if hook.disabled is not None:
                    await store.kv_delete(delivery.key)
                elif delivery.due <= now:
                    if client is None:
                        client = await stack.enter_async_context(self._connect())
                    if time.monotonic() > until or not await self.deliver(hook, delivery, client):
                        break
                    taken += 1
        return taken

    async def deliver(self, hook: WebhookEndpoint, delivery: Delivery, client: Any = None) -> bool:
        """Send one message once. Return whether it was accepted; if not, schedule a retry."""
        store = self._store()
        status, problem = await self.post(hook, delivery, client)
        if 200 <= status < 300:
            self.sent += 1
            if hook.id in self._failing:
                self._failing.remove(hook.id)
                log.warning("webhook %s: deliveries are accepted again", hook.id)
            await store.kv_delete(delivery.key)
            return True
        self.failed += 1
        if status == 410:
            await registry.disable(store, hook, "the receiver responded with 410 Gone")
            self._to_check.pop(hook.id, None)  # it was read before
            await store.kv_delete(delivery.key)
            return False
        if delivery.attempts >= len(RETRY_DELAYS):
            log.warning(
                "webhook %s: delivery %s dropped after the last retry: %s", hook.id, delivery.message_id, problem
            )
            await store.kv_delete(delivery.key)
            return False
        delay = RETRY_DELAYS[delivery.attempts]
        if hook.id not in self._failing:
            self._failing.add(hook.id)
            log.warning(
                "webhook %s: delivery %s failed: %s; retrying in %g s", hook.id, delivery.message_id, problem, delay
            )
        due = await store.now() + int(delay * 1_000_000)
        later = Delivery(hook.id, delivery.message_id, delivery.body, due, delivery.attempts + 1, problem)
        await registry.save_delivery(store, later)
        return False

    async def post(self, hook: WebhookEndpoint, delivery: Delivery, client: Any = None) -> tuple[int, str]:
        """Return the status of the response (0 if there is none) and what is wrong. Redirects are not followed.

        `client` is one that only this webhook uses; without it the message has a connection of its own.
        """
        import httpx
        from standardwebhooks.webhooks import Webhook

        if client is None:
            async with self._connect() as client:
                return await self.post(hook, delivery, client)
        now, status = datetime.now(UTC), 0
        headers = {
            "content-type": "application/json",
            "user-agent": "milepost",
            "webhook-id": delivery.message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(hook.secret).sign(delivery.message_id, now, delivery.body),
        }
        try:
            async with asyncio.timeout(RESPONSE_TIMEOUT):
                parts = urlsplit(hook.url)
                address = await self._resolve(hook.url)
                shown = f"[{address}]" if ":" in address else address
                url = parts._replace(netloc=f"{shown}:{parts.port or 443}").geturl()
                headers["host"] = parts.netloc.encode("idna").decode()
                # The connection goes to the checked address; the certificate is verified for the host name.
                name = (parts.hostname or "").encode("idna").decode()
                request = client.stream(
                    "POST", url, content=delivery.body.encode(), headers=headers, extensions={"sni_hostname": name}
                )
                async with request as answer:
                    status, size = answer.status_code, 0
                    async for part in cast(httpx.AsyncByteStream, answer.stream):
                        size += len(part)
                        if size > MAX_RESPONSE_BYTES:
                            break
        except InvalidInputError as refused:
            return 0, str(refused)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            # Errors after the status do not matter: the receiver has responded.
            if not status:
                late = isinstance(error, TimeoutError)
                return 0, f"no response within {RESPONSE_TIMEOUT:g} s" if late else f"{type(error).__name__}: {error}"[
                    :300
                ]
        return status, "" if 200 <= status < 300 else f"responded with status {status}"


def _ended_at(job: Job) -> int:
    return to_micros(job.completed_at, "completed_at") if job.completed_at is not None else 0
