"""API keys ``mp_<id>_<secret>``, signed-in sessions, and share links, which show one job until they expire or are revoked.

The store keeps only a SHA-256 of each secret. A share link also ends with its job and with the key that created it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from milepost.core.errors import InvalidInputError
from milepost.core.job import Job
from milepost.core.options import QUEUE_BYTES
from milepost.core.record import OPTIONS
from milepost.core.serialization import from_micros, labels_text, single_line, validate_job_type, validate_key
from milepost.stores.protocol import KeyValue, Store
from milepost.stores.query import created
from milepost.stores.scan import scan_all
from milepost.web.security.principals import CANCEL, READ, Principal, scopes_of

KEYS, SESSIONS = "key/", "session/"
SESSION_SECONDS = 12 * 3600.0
CACHE_SECONDS = 2.0
"""Seconds for which a found key is cached, from the start of its lookup. A revocation reaches other processes after at most
this time.
"""
MAX_CACHED_KEYS = 10_000


class TooManySessionsError(Exception):
    """Raised when a key has reached its maximum number of signed-in sessions."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. Times are microseconds."""

    id: str
    name: str
    scopes: tuple[str, ...]
    labels: Mapping[str, str]
    created: int
    expires: int | None = None
    revoked: int | None = None
    types: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    """The job types, and the queues, whose jobs the key may submit and retry. Empty means all."""
    max_priority: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the key as JSON types."""
        return {
            "id": self.id,
            "name": self.name,
            "scopes": list(self.scopes),
            "labels": dict(self.labels),
            "types": list(self.types),
            "queues": list(self.queues),
            "max_priority": self.max_priority,
            "created_at": from_micros(self.created).isoformat(),
            "expires_at": from_micros(self.expires).isoformat() if self.expires is not None else None,
            "revoked_at": from_micros(self.revoked).isoformat() if self.revoked is not None else None,
        }

    def usable(self, now: int) -> bool:
        """Return whether the key is neither revoked nor expired."""
        return self.revoked is None and (self.expires is None or self.expires > now)

    @property
    def principal(self) -> Principal:
        """The principal of this key."""
        return Principal(
            f"key:{self.id}",
            frozenset(self.scopes),
            dict(self.labels),
            types=frozenset(self.types),
            queues=frozenset(self.queues),
            max_priority=self.max_priority,
        )


class ApiKeyStore:
    """The API keys and sessions of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str], tuple[float, Principal]] = {}
        # Cached by kind too, so that a session is not accepted as a key, nor a key as a session.
        self._ended = 0
        """How many keys and sessions this process has ended. A lookup during which one ends is not cached."""

    async def create(
        self,
        name: str,
        scopes: Iterable[str],
        *,
        labels: Mapping[str, str] | None = None,
        types: Iterable[str] = (),
        queues: Iterable[str] = (),
        max_priority: int | None = None,
        expires_in: float | None = None,
    ) -> tuple[ApiKey, str]:
        """Create a key. Return it and its secret, which cannot be shown again. Raises InvalidInputError."""
        try:
            wanted = tuple(sorted(scopes_of(scopes)))
        except ValueError as error:
            raise InvalidInputError("scopes", str(error)) from None
        if not wanted:
            raise InvalidInputError("scopes", "must not be empty; name at least one scope")
        labels_text(labels)
        try:
            allowed = tuple(sorted({validate_job_type(name) for name in types}))
        except InvalidInputError as error:
            raise InvalidInputError("types", error.problem) from None
        served = tuple(sorted({validate_key(name, "queues", QUEUE_BYTES) for name in queues}))
        OPTIONS["priority"].write("max_priority", max_priority)
        now = await self._store.now()
        expires = None if expires_in is None else now + int(expires_in * 1_000_000)
        secret = secrets.token_urlsafe(32)
        while True:
            key_id = secrets.token_hex(6)
            key = ApiKey(
                key_id, single_line(name, 200), wanted, dict(labels or {}), now, expires, types=allowed, queues=served,
                max_priority=max_priority,
            )  # fmt: skip
            value = _written(key, digest_of(secret))
            if await self._store.kv_put(KEYS + key.id, value, version=0) is not None:
                return key, f"mp_{key.id}_{secret}"

    async def all(self) -> list[ApiKey]:
        """Return all keys, including revoked and expired ones, by id."""
        return [_read(item.key[len(KEYS) :], item.value)[0] async for item in scan_all(self._store, KEYS)]

    async def revoke(self, key_id: str) -> bool:
        """Revoke a key: at once in this process, within seconds in others. Return False if it does not exist."""
        while True:
            item = await self._store.kv_get(KEYS + key_id) if key_id.isalnum() else None
            if item is None:
                return False
            key, digest = _read(key_id, item.value)
            now = key.revoked if key.revoked is not None else await self._store.now()
            gone = replace(key, revoked=now)
            if await self._store.kv_put(KEYS + key_id, _written(gone, digest), version=item.version) is not None:
                self._forget()
                return True

    async def is_usable(self, key_id: str) -> bool:
        """Return whether a key exists and is neither revoked nor expired."""
        item = await self._store.kv_get(KEYS + key_id)
        return item is not None and _read(key_id, item.value)[0].usable(await self._store.now())

    async def find(self, token: str) -> Principal | None:
        """Return the principal of a key, or None if the key is wrong, expired or revoked."""
        return await self._find(token, "mp", KEYS)

    async def sign_in(self, token: str, most: int) -> str | None:
        """Return the token of a new session for a key, or None for a wrong key. Raises TooManySessionsError at `most`
        sessions.
        """
        if await self.find(token) is None:
            return None
        key_id = token.split("_", 2)[1]
        # The session id begins with the key id, so that the sessions of all servers can be counted.
        if len(await self._store.kv_scan(SESSIONS + key_id, limit=most)) >= most:
            raise TooManySessionsError
        session, secret = key_id + secrets.token_hex(8), secrets.token_urlsafe(32)
        value = json.dumps({"digest": digest_of(secret), "key": key_id})
        await self._store.kv_put(SESSIONS + session, value, ttl=SESSION_SECONDS)
        return f"ms_{session}_{secret}"

    async def of_session(self, token: str) -> Principal | None:
        """Return the principal of a session token, or None."""
        return await self._find(token, "ms", SESSIONS)

    async def sign_out(self, token: str) -> None:
        """End a session."""
        if await self.of_session(token) is not None:
            await self._store.kv_delete(SESSIONS + token.split("_", 2)[1])
            self._forget()

    def _forget(self) -> None:
        """Empty the cache, after a key or session has ended in the store."""
        self._known.clear()
        self._ended += 1

    async def _find(self, token: str, kind: str, prefix: str) -> Principal | None:
        known = self._known.get((kind, token))
        if known is not None and known[0] > time.monotonic():
            return known[1]
        began_at, ended = time.monotonic(), self._ended
        parts = token.split("_", 2)
        if len(token) > 200 or len(parts) != 3 or parts[0] != kind or not (parts[1].isalnum() and parts[1].isascii()):
            return None
        item = await self._store.kv_get(prefix + parts[1])
        if item is None:
            return None
        if prefix is SESSIONS:
            held = json.loads(item.value)
            if not hmac.compare_digest(held["digest"], digest_of(parts[2])):
                return None
            under = await self._store.kv_get(KEYS + held["key"])
            if under is None:
                return None
            key, _ = _read(held["key"], under.value)
        else:
            key, digest = _read(parts[1], item.value)
            if not hmac.compare_digest(digest, digest_of(parts[2])):
                return None
        if not key.usable(await self._store.now()):
            return None
        if len(self._known) >= MAX_CACHED_KEYS:
            self._known.clear()
        if ended == self._ended:
            self._known[kind, token] = (began_at + CACHE_SECONDS, key.principal)
        return key.principal


def digest_of(secret: str) -> str:
    """Return the SHA-256 of a secret, the only part of it that is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _written(entry: ApiKey | Link, digest: str) -> str:
    """Return the stored text of a key or a link, whose id is the key of the entry."""
    values = asdict(entry)
    del values["id"]
    return json.dumps({"digest": digest, **values})


def _stored(kind: type[ApiKey | Link], text: str) -> tuple[dict[str, Any], str]:
    """Return the values of the fields in such a text, and the digest. Fields of newer releases are left out."""
    held = json.loads(text)
    return {one.name: held[one.name] for one in fields(kind) if one.name in held}, held["digest"]


def _read(key_id: str, text: str) -> tuple[ApiKey, str]:
    values, digest = _stored(ApiKey, text)
    values |= {name: tuple(values.get(name, ())) for name in ("scopes", "types", "queues")}
    return ApiKey(id=key_id, **values), digest


LINKS = "share/"
MAX_SECONDS = 30 * 86_400.0
MAX_LINKS_PER_JOB = 100
"""Maximum number of valid links to one job."""


@dataclass(frozen=True, slots=True)
class Link:
    """A share link without its token. Times are microseconds; `job_created` distinguishes a job from a later one with
    the same id.
    """

    id: str
    job_id: str
    job_created: int
    by: str | None
    may_cancel: bool
    created: int
    expires: int

    def to_dict(self) -> dict[str, Any]:
        """Return the link as JSON types."""
        return {
            "id": self.id,
            "by": self.by,
            "may_cancel": self.may_cancel,
            "created_at": from_micros(self.created).isoformat(),
            "expires_at": from_micros(self.expires).isoformat(),
        }


class ShareLinkStore:
    """The share links of one store."""

    def __init__(self, store: Store, keys: ApiKeyStore) -> None:
        self._store = store
        self._keys = keys

    async def create(self, job: Job, seconds: float, *, by: str | None, may_cancel: bool = False) -> tuple[Link, str]:
        """Create a link to a job. Return it and its token, which cannot be shown again."""
        now = await self._store.now()
        link_id = _prefix(job.job_id) + secrets.token_hex(6)
        expires = now + int(min(seconds, MAX_SECONDS) * 1_000_000)
        link = Link(link_id, job.job_id, created(job), by, may_cancel, now, expires)
        secret = secrets.token_urlsafe(32)
        await self._store.kv_put(LINKS + link_id, _written(link, digest_of(secret)), ttl=(expires - now) / 1_000_000)
        return link, f"msl_{link_id}_{secret}"

    async def links_to(self, job: Job) -> list[Link]:
        """Return the valid links to a job, by id."""
        found = [_read_link(item)[0] async for item in scan_all(self._store, f"{LINKS}{_prefix(job.job_id)}")]
        return [link for link in found if link.job_id == job.job_id and link.job_created == created(job)]

    async def revoke(self, link: Link) -> bool:
        """Revoke a link, at once for all servers. Return False if it no longer exists."""
        return await self._store.kv_delete(LINKS + link.id)

    async def find(self, token: str) -> Principal | None:
        """Return the principal of a token, or None if it is wrong or expired, or its job or key is gone."""
        kind, _, rest = token.partition("_")
        link_id, _, secret = rest.partition("_")
        if len(token) > 200 or kind != "msl" or not (link_id.isalnum() and link_id.isascii()):
            return None
        item = await self._store.kv_get(LINKS + link_id)
        if item is None:
            return None
        link, digest = _read_link(item)
        if not hmac.compare_digest(digest, digest_of(secret)) or link.expires <= await self._store.now():
            return None
        by, _, key_id = (link.by or "").partition(":")
        if by == "key" and not await self._keys.is_usable(key_id):
            return None
        job = await self._store.get(link.job_id)
        if job is None or created(job) != link.job_created:
            return None
        scopes = frozenset({READ, CANCEL} if link.may_cancel else {READ})
        return Principal(f"share:{link.id}", scopes, job_id=link.job_id, job_created=link.job_created)


def _prefix(job_id: str) -> str:
    """Return the common prefix of the ids of all links to a job."""
    return digest_of(job_id)[:16]


def _read_link(item: KeyValue) -> tuple[Link, str]:
    values, digest = _stored(Link, item.value)
    return Link(id=item.key[len(LINKS) :], **values), digest
