"""Webhooks and their pending deliveries in the key-value store."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import from_micros
from milepost.query.filters import parse_filter
from milepost.stores.protocol import Store
from milepost.stores.scan import scan_all

WEBHOOKS, DELIVERIES = "webhook/", "delivery/"
ENDS = ("completed", "failed", "cancelled")
KINDS = (*ENDS, "asked", "stalled")
DELIVERY_RETENTION_SECONDS = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A webhook. `disabled` is the reason why nothing is sent; times are microseconds."""

    id: str
    url: str
    events: tuple[str, ...]
    q: str
    secret: str = field(repr=False)
    created: int
    disabled: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the webhook without its secret."""
        return {
            "id": self.id,
            "url": self.url,
            "events": list(self.events),
            "q": self.q,
            "created_at": from_micros(self.created).isoformat(),
            "disabled": self.disabled,
        }


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one webhook. `due` is in microseconds; `attempts` have failed, the last one with `problem`."""

    hook_id: str
    message_id: str
    body: str
    due: int
    attempts: int = 0
    problem: str = ""

    @property
    def key(self) -> str:
        """Its key in the key-value store."""
        return f"{DELIVERIES}{self.hook_id}/{self.message_id}"


def validate_url(url: str) -> str:
    """Check the URL of a webhook. Raises InvalidInputError."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme == "https" and parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError:  # an incomplete IPv6 address, an invalid port
        fits = False
    if not fits or "\\" in url or not url.isprintable() or len(url) > 2000:
        raise InvalidInputError("url", "must be of the form https://host/path, without user and password")
    return url


async def create(store: Store, url: str, events: tuple[str, ...] = ENDS, q: str = "") -> WebhookEndpoint:
    """Create a webhook. Raises InvalidInputError, FilterError."""
    unknown = set(events) - set(KINDS)
    if unknown or not events:
        raise InvalidInputError("events", f"must be one or more of {', '.join(KINDS)}")
    parse_filter(q)
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    hook = WebhookEndpoint(secrets.token_hex(6), validate_url(url), tuple(events), q, secret, await store.now())
    await store.kv_put(WEBHOOKS + hook.id, json.dumps(asdict(hook)), version=0)
    return hook


async def all_hooks(store: Store) -> list[WebhookEndpoint]:
    """Return all webhooks, by id."""
    return [_webhook(json.loads(item.value)) async for item in scan_all(store, WEBHOOKS)]


async def get(store: Store, hook_id: str) -> WebhookEndpoint | None:
    """Return a webhook, or None if it does not exist."""
    item = await store.kv_get(WEBHOOKS + hook_id) if hook_id.isalnum() else None
    return None if item is None else _webhook(json.loads(item.value))


async def disable(store: Store, hook: WebhookEndpoint, why: str | None) -> WebhookEndpoint:
    """Disable a webhook for a reason, or enable it with None. A webhook removed in the meantime stays removed."""
    changed = replace(hook, disabled=why)
    item = await store.kv_get(WEBHOOKS + hook.id)
    if item is not None:
        await store.kv_put(WEBHOOKS + hook.id, json.dumps(asdict(changed)), version=item.version)
    return changed


async def delete(store: Store, hook_id: str) -> bool:
    """Delete a webhook and its pending deliveries. Return False if it does not exist."""
    if await get(store, hook_id) is None:
        return False
    await store.kv_delete(WEBHOOKS + hook_id)
    async for delivery in all_deliveries(store, hook_id):
        await store.kv_delete(delivery.key)
    return True


async def deliveries(store: Store, hook_id: str = "") -> list[Delivery]:
    """Return the pending deliveries of one webhook or of all."""
    return [delivery async for delivery in all_deliveries(store, hook_id)]


async def all_deliveries(store: Store, hook_id: str = "") -> AsyncGenerator[Delivery]:
    """Yield the pending deliveries of one webhook, in order, or of all."""
    async for item in scan_all(store, f"{DELIVERIES}{hook_id}/" if hook_id else DELIVERIES):
        yield Delivery(**json.loads(item.value))


async def pending(store: Store, hook_id: str) -> dict[str, Any]:
    """Return how many deliveries of a webhook wait, and of the one that is repeated next, its time and what was wrong."""
    count, first = 0, None
    async for delivery in all_deliveries(store, hook_id):
        count += 1
        if delivery.attempts and (first is None or delivery.due < first.due):
            first = delivery
    return {
        "waiting": count,
        "problem": None if first is None else first.problem,
        "next_at": None if first is None else from_micros(first.due).isoformat(),
    }


async def save_delivery(store: Store, delivery: Delivery, *, only_if_absent: bool = False) -> None:
    """Store a delivery, unless its webhook does not exist.

    With `only_if_absent` an existing one is kept, so that each end is sent once.
    """
    await store.kv_put(
        delivery.key,
        json.dumps(asdict(delivery)),
        version=0 if only_if_absent else None,
        ttl=DELIVERY_RETENTION_SECONDS,
    )
    # After the write: a webhook that is deleted later deletes this delivery.
    if await get(store, delivery.hook_id) is None:
        await store.kv_delete(delivery.key)


def _webhook(data: Mapping[str, Any]) -> WebhookEndpoint:
    return WebhookEndpoint(**{**data, "events": tuple(data["events"])})
