"""Webhooks on the shelf: where to, for which ends, signed with what; and the deliveries that are still to be made.

Owns their form; who sends them is `delivering`.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from milepost.core.encoding import moment
from milepost.core.errors import InvalidInput
from milepost.stores.filters import parse_filter
from milepost.stores.protocol import Store

HOOKS, DELIVERIES = "webhook/", "delivery/"
KINDS = ("completed", "failed", "cancelled")
DELIVERY_KEPT = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook. `disabled` says why nothing is sent; times are microseconds."""

    id: str
    url: str
    events: tuple[str, ...]
    q: str
    secret: str
    created: int
    disabled: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The webhook as it may be shown: without its secret."""
        return {
            "id": self.id,
            "url": self.url,
            "events": list(self.events),
            "q": self.q,
            "created_at": moment(self.created).isoformat(),
            "disabled": self.disabled,
        }


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message for one webhook. `due` in microseconds; `attempts` that failed, and how the last one did."""

    hook_id: str
    message_id: str
    body: str
    due: int
    attempts: int = 0
    problem: str = ""

    @property
    def key(self) -> str:
        """Its name on the shelf."""
        return f"{DELIVERIES}{self.hook_id}/{self.message_id}"


def address_text(url: str) -> str:
    """Check the address of a webhook. Raises InvalidInput."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme == "https" and parts.hostname and not parts.username and parts.port != 0
    except ValueError:  # half an IPv6 address, a port that is none
        fits = False
    if not fits or "\\" in url or not url.isprintable() or len(url) > 2000:
        raise InvalidInput("url", "must be https://host/path, without a user")
    return url


async def create(store: Store, url: str, events: tuple[str, ...] = KINDS, q: str = "") -> Hook:
    """Make a webhook. Raises InvalidInput, FilterError."""
    unknown = set(events) - set(KINDS)
    if unknown or not events:
        raise InvalidInput("events", f"one or more of {', '.join(KINDS)}")
    parse_filter(q)
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    hook = Hook(secrets.token_hex(6), address_text(url), tuple(events), q, secret, await store.now())
    await store.shelf_put(HOOKS + hook.id, json.dumps(asdict(hook)), version=0)
    return hook


async def all_hooks(store: Store) -> list[Hook]:
    """Every webhook, by id."""
    return [_hook(json.loads(item.value)) for item in await store.shelf_scan(HOOKS)]


async def get(store: Store, hook_id: str) -> Hook | None:
    """The webhook of an id."""
    item = await store.shelf_get(HOOKS + hook_id) if hook_id.isalnum() else None
    return None if item is None else _hook(json.loads(item.value))


async def disable(store: Store, hook: Hook, why: str | None) -> Hook:
    """Send nothing more to a webhook; None: send again. One that was removed meanwhile stays removed."""
    changed = replace(hook, disabled=why)
    item = await store.shelf_get(HOOKS + hook.id)
    if item is not None:
        await store.shelf_put(HOOKS + hook.id, json.dumps(asdict(changed)), version=item.version)
    return changed


async def delete(store: Store, hook_id: str) -> bool:
    """Remove a webhook with what was still to be sent to it; False when there is none."""
    if await get(store, hook_id) is None:
        return False
    await store.shelf_delete(HOOKS + hook_id)
    while found := await deliveries(store, hook_id):
        for delivery in found:
            await store.shelf_delete(delivery.key)
    return True


async def deliveries(store: Store, hook_id: str = "") -> list[Delivery]:
    """What is still to be sent, at most a thousand; of one webhook, or of all."""
    prefix = f"{DELIVERIES}{hook_id}/" if hook_id else DELIVERIES
    return [Delivery(**json.loads(item.value)) for item in await store.shelf_scan(prefix)]


async def waiting(store: Store, hook_id: str) -> int:
    """How many messages are still to be sent to a webhook."""
    count, after = 0, ""
    while items := await store.shelf_scan(f"{DELIVERIES}{hook_id}/", after):
        count += len(items)
        after = items[-1].key
    return count


async def keep(store: Store, delivery: Delivery, *, anew: bool = False) -> None:
    """Write a delivery down; with `anew` only when it is not there, so that the same end is sent once."""
    await store.shelf_put(delivery.key, json.dumps(asdict(delivery)), version=0 if anew else None, ttl=DELIVERY_KEPT)


def _hook(data: Mapping[str, Any]) -> Hook:
    return Hook(**{**data, "events": tuple(data["events"])})
