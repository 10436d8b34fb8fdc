"""Delivering webhooks: one server of a store at a time follows the feed from a durable cursor, writes down what is to be
sent, and sends it until it is taken (Standard Webhooks: signed, a stable id, retried with backoff, ended by 410).

At least once: what was written down is sent until it is answered, and the cursor moves only after it was written down.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import urlsplit

from milepost.core.encoding import micros
from milepost.core.errors import InvalidInput, StoreError
from milepost.core.job import Job
from milepost.stores.filters import parse_filter
from milepost.stores.protocol import Select, Store
from milepost.stores.query import Query, find
from milepost.web import hooks
from milepost.web.addresses import public_address
from milepost.web.hooks import Delivery, Hook
from milepost.web.wire import encoded, row

log = logging.getLogger("milepost.webhooks")
log.addHandler(logging.NullHandler())

CURSOR, LEADER = "webhooks/cursor", "webhooks/leader"
LEADS_FOR = 30.0
STEP = 2.0
AFTER = (5.0, 60.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0)
"""Seconds before each further attempt; after the last one the delivery is given up."""
ANSWER_WITHIN = 10.0
ANSWER_BYTES = 65_536
"""What is read of an answer, so that the connection can be used again; what it says is of no interest."""
SENDS_FOR = 5.0
"""Seconds after which the feed is looked at again. With one answer more this is within half of the time that one leads."""

Resolve = Callable[[str], Awaitable[str]]


def message_of(job: Job) -> tuple[str, str]:
    """The id and the body of the message that a job has ended: the same for the same end, whoever makes it."""
    ended = micros(job.completed_at, "completed_at") if job.completed_at is not None else job.version
    data = {**row(job), "metadata": job.metadata, "retry_of": job.retry_of}
    body = {"type": f"job.{job.status.value}", "timestamp": datetime.now(UTC).isoformat(), "data": data}
    return f"msg_{job.job_id}_{ended}", encoded(body).decode()


async def begin(store: Store) -> None:
    """Follow the feed from now on, unless it is followed already."""
    start = (await store.feed(None)).position
    await store.shelf_put(CURSOR, json.dumps({"position": start, "at": await store.now()}), version=0)


class Deliverer:
    """Follows the feed and sends, while this server is the one of its store that does."""

    def __init__(self, store: Callable[[], Store], *, resolve: Resolve = public_address, client: Any = None) -> None:
        self._store = store
        self._me = secrets.token_hex(8)
        self._resolve = resolve
        self._client = client
        self._task: asyncio.Task[None] | None = None
        self._led_until = 0.0
        self.sent = self.failed = 0

    async def __aenter__(self) -> Deliverer:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _run(self) -> None:
        while True:
            try:
                known = await hooks.all_hooks(self._store())
                if known and await self._lead():
                    await self.note(known)
                    await self.send_due(known)
                else:
                    await asyncio.sleep(STEP)
            except StoreError:
                await asyncio.sleep(STEP)
            except Exception:
                # A defect here must not end the deliveries of the process.
                log.exception("the webhooks met an unexpected error; they go on")
                await asyncio.sleep(STEP)

    async def _lead(self) -> bool:
        """Whether this server may deliver: it holds the leader's entry, or takes it when nobody does."""
        if time.monotonic() < self._led_until - LEADS_FOR / 2:
            return True
        store = self._store()
        item = await store.shelf_get(LEADER)
        if item is not None and item.value != self._me:
            return False
        version = item.version if item is not None else 0
        if await store.shelf_put(LEADER, self._me, version=version, ttl=LEADS_FOR) is None:
            return False
        self._led_until = time.monotonic() + LEADS_FOR
        return True

    async def note(self, known: list[Hook], *, wait: float = STEP) -> None:
        """Read the feed from the cursor on, and write down what is to be sent."""
        store = self._store()
        item = await store.shelf_get(CURSOR)
        now = await store.now()
        if item is None:
            await begin(store)
            return
        cursor = json.loads(item.value)
        news = await store.feed(cursor["position"], timeout=wait)
        if news.lost:
            await self._catch_up(known, int(cursor["at"]))
        for event in news.events:
            if event.kind in hooks.KINDS:
                job = await store.get(event.job_id)
                if job is not None and job.is_terminal:
                    await self._write_down(known, job)
        if news.events or news.lost:
            await store.shelf_put(CURSOR, json.dumps({"position": news.position, "at": now}))

    async def _catch_up(self, known: list[Hook], since: int) -> None:
        """The feed no longer has what is after the cursor: find the jobs that ended since by looking at them."""
        cursor: str | None = None
        ended = Query(Select(statuses=hooks.KINDS), (lambda job: _ended_at(job) >= since,))
        while True:
            page = await find(self._store(), ended, 500, cursor)
            for job in page.jobs:
                await self._write_down(known, job)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _write_down(self, known: list[Hook], job: Job) -> None:
        message_id, body = message_of(job)
        now = await self._store().now()
        for hook in known:
            # The cursor may be older than the webhook: it stands still while there is none.
            wanted = hook.disabled is None and job.status.value in hook.events and _ended_at(job) >= hook.created
            if wanted and parse_filter(hook.q, now=now).query.matches(job):
                await hooks.keep(self._store(), Delivery(hook.id, message_id, body, now), anew=True)

    async def send_due(self, known: list[Hook]) -> int:
        """Send what is due, to all receivers at once, so that none waits for another; how many were taken."""
        told = await asyncio.gather(*map(self._send_to, known), return_exceptions=True)
        for outcome in told:
            if isinstance(outcome, BaseException):
                raise outcome
        return sum(outcome for outcome in told if isinstance(outcome, int))

    async def _send_to(self, hook: Hook) -> int:
        """Send what is due to one receiver, in order, until it does not take one; how many it took."""
        store, taken = self._store(), 0
        now, until = await store.now(), time.monotonic() + SENDS_FOR
        for delivery in await hooks.deliveries(store, hook.id):
            if hook.disabled is not None:
                await store.shelf_delete(delivery.key)
            elif delivery.due <= now:
                if time.monotonic() > until or not await self.deliver(hook, delivery):
                    break
                taken += 1
        return taken

    async def deliver(self, hook: Hook, delivery: Delivery) -> bool:
        """Send one message once; whether it was taken. What was not is written down for later."""
        store = self._store()
        status, problem = await self.post(hook, delivery)
        if 200 <= status < 300:
            self.sent += 1
            await store.shelf_delete(delivery.key)
            return True
        self.failed += 1
        if status == 410:
            await hooks.disable(store, hook, "the receiver answered 410 Gone")
            await store.shelf_delete(delivery.key)
            return False
        if delivery.attempts >= len(AFTER):
            log.warning("webhook %s: %s was given up: %s", hook.id, delivery.message_id, problem)
            await store.shelf_delete(delivery.key)
            return False
        due = await store.now() + int(AFTER[delivery.attempts] * 1_000_000)
        later = Delivery(hook.id, delivery.message_id, delivery.body, due, delivery.attempts + 1, problem)
        await hooks.keep(store, later)
        return False

    async def post(self, hook: Hook, delivery: Delivery) -> tuple[int, str]:
        """The status of the answer, 0 without one, and what was wrong. Redirects are not followed."""
        import httpx
        from standardwebhooks.webhooks import Webhook

        if self._client is None:
            self._client = httpx.AsyncClient(timeout=ANSWER_WITHIN, follow_redirects=False, trust_env=False)
        now, status = datetime.now(UTC), 0
        headers = {
            "content-type": "application/json",
            "user-agent": "milepost",
            "webhook-id": delivery.message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(hook.secret).sign(delivery.message_id, now, delivery.body),
        }
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                parts = urlsplit(hook.url)
                address = await self._resolve(hook.url)
                shown = f"[{address}]" if ":" in address else address
                url = parts._replace(netloc=f"{shown}:{parts.port or 443}").geturl()
                headers["host"] = parts.netloc.encode("idna").decode()
                # The certificate is checked against the name, though the connection goes to the address.
                name = (parts.hostname or "").encode("idna").decode()
                request = self._client.stream(
                    "POST", url, content=delivery.body.encode(), headers=headers, extensions={"sni_hostname": name}
                )
                async with request as answer:
                    status, size = answer.status_code, 0
                    async for part in cast(httpx.AsyncByteStream, answer.stream):
                        size += len(part)
                        if size > ANSWER_BYTES:
                            break
        except InvalidInput as refused:
            return 0, str(refused)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            # After the status nothing that goes wrong matters: the receiver has answered.
            if not status:
                late = isinstance(error, TimeoutError)
                return 0, f"no answer within {ANSWER_WITHIN:g} s" if late else f"{type(error).__name__}: {error}"[:300]
        return status, f"answered {status}"


def _ended_at(job: Job) -> int:
    return micros(job.completed_at, "completed_at") if job.completed_at is not None else 0
