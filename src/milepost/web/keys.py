"""API keys and signed-in sessions: ``mp_<id>_<secret>``, of whose secret only a SHA-256 is kept. Owns their life on the
shelf; knows no transport.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from milepost.core.encoding import labels_text, moment, one_line
from milepost.core.errors import InvalidInput
from milepost.stores.protocol import Store
from milepost.web.principals import Principal, scopes_of

KEYS, SESSIONS = "key/", "session/"
SESSION_SECONDS = 12 * 3600.0
REMEMBERED = 2.0
"""Seconds for which a key that was found is not looked up again: as late may another process learn of a revocation."""
REMEMBERED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it may be shown: everything but its secret. Times are microseconds."""

    id: str
    name: str
    scopes: tuple[str, ...]
    labels: Mapping[str, str]
    created: int
    expires: int | None = None
    revoked: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The key as JSON types."""
        return {
            "id": self.id,
            "name": self.name,
            "scopes": list(self.scopes),
            "labels": dict(self.labels),
            "created_at": moment(self.created).isoformat(),
            "expires_at": moment(self.expires).isoformat() if self.expires is not None else None,
            "revoked_at": moment(self.revoked).isoformat() if self.revoked is not None else None,
        }

    def usable(self, now: int) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked is None and (self.expires is None or self.expires > now)

    @property
    def principal(self) -> Principal:
        """Who comes with this key."""
        return Principal(f"key:{self.id}", frozenset(self.scopes), dict(self.labels))


class Keys:
    """The keys and sessions of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[float, Principal]] = {}

    async def create(
        self,
        name: str,
        scopes: Iterable[str],
        *,
        labels: Mapping[str, str] | None = None,
        expires_in: float | None = None,
    ) -> tuple[Key, str]:
        """Make a key; the text is its secret, which nobody can show again. Raises InvalidInput."""
        try:
            wanted = tuple(sorted(scopes_of(scopes)))
        except ValueError as error:
            raise InvalidInput("scopes", str(error)) from None
        if not wanted:
            raise InvalidInput("scopes", "name at least one")
        labels_text(labels)
        now = await self._store.now()
        expires = None if expires_in is None else now + int(expires_in * 1_000_000)
        secret = secrets.token_urlsafe(32)
        while True:
            key = Key(secrets.token_hex(6), one_line(name, 200), wanted, dict(labels or {}), now, expires)
            value = _written(key, _digest(secret))
            if await self._store.shelf_put(KEYS + key.id, value, version=0) is not None:
                return key, f"mp_{key.id}_{secret}"

    async def all(self) -> list[Key]:
        """Every key, revoked and expired ones too, by id."""
        found: list[Key] = []
        after = ""
        while items := await self._store.shelf_scan(KEYS, after):
            found += [_read(item.key[len(KEYS) :], item.value)[0] for item in items]
            after = items[-1].key
        return found

    async def revoke(self, key_id: str) -> bool:
        """Make a key useless, at once in this process and within seconds in others. False when there is none."""
        while True:
            item = await self._store.shelf_get(KEYS + key_id) if key_id.isalnum() else None
            if item is None:
                return False
            key, digest = _read(key_id, item.value)
            now = key.revoked if key.revoked is not None else await self._store.now()
            gone = Key(key.id, key.name, key.scopes, key.labels, key.created, key.expires, now)
            if await self._store.shelf_put(KEYS + key_id, _written(gone, digest), version=item.version) is not None:
                self._known.clear()
                return True

    async def find(self, token: str) -> Principal | None:
        """Who comes with a key; None for a wrong, expired or revoked one."""
        return await self._look(token, "mp", KEYS)

    async def sign_in(self, token: str) -> str | None:
        """The text of a new session for the holder of a key."""
        if await self.find(token) is None:
            return None
        session, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        value = json.dumps({"digest": _digest(secret), "key": token.split("_", 2)[1]})
        await self._store.shelf_put(SESSIONS + session, value, ttl=SESSION_SECONDS)
        return f"ms_{session}_{secret}"

    async def of_session(self, token: str) -> Principal | None:
        """Who is signed in with a session's text."""
        return await self._look(token, "ms", SESSIONS)

    async def sign_out(self, token: str) -> None:
        """End a session."""
        self._known.pop(token, None)
        if await self.of_session(token) is not None:
            self._known.pop(token, None)
            await self._store.shelf_delete(SESSIONS + token.split("_", 2)[1])

    async def _look(self, token: str, kind: str, shelf: str) -> Principal | None:
        known = self._known.get(token)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        parts = token.split("_", 2)
        if len(token) > 200 or len(parts) != 3 or parts[0] != kind or not (parts[1].isalnum() and parts[1].isascii()):
            return None
        item = await self._store.shelf_get(shelf + parts[1])
        if item is None:
            return None
        if shelf is SESSIONS:
            held = json.loads(item.value)
            if not hmac.compare_digest(held["digest"], _digest(parts[2])):
                return None
            under = await self._store.shelf_get(KEYS + held["key"])
            if under is None:
                return None
            key, _ = _read(held["key"], under.value)
        else:
            key, digest = _read(parts[1], item.value)
            if not hmac.compare_digest(digest, _digest(parts[2])):
                return None
        if not key.usable(await self._store.now()):
            return None
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        self._known[token] = (time.monotonic() + REMEMBERED, key.principal)
        return key.principal


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _written(key: Key, digest: str) -> str:
    return json.dumps(
        {
            "digest": digest,
            "name": key.name,
            "scopes": key.scopes,
            "labels": dict(key.labels),
            "created": key.created,
            "expires": key.expires,
            "revoked": key.revoked,
        }
    )


def _read(key_id: str, text: str) -> tuple[Key, str]:
    held = json.loads(text)
    key = Key(
        key_id, held["name"], tuple(held["scopes"]), held["labels"], held["created"], held["expires"], held["revoked"]
    )
    return key, held["digest"]
