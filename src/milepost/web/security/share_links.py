"""Share links: a token that reads one job, and may cancel it, until it expires or is revoked.

The store keeps only a SHA-256 of the token. A link also ends with its job and with the key that created it.
"""

from __future__ import annotations

import hmac
import json
import secrets
from dataclasses import dataclass
from typing import Any

from milepost.core.job import Job
from milepost.core.serialization import from_micros
from milepost.stores.protocol import KeyValue, Store
from milepost.stores.query import created
from milepost.web.security.api_keys import ApiKeyStore, digest_of
from milepost.web.security.principals import CANCEL, READ, Principal

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
        items = await self._store.kv_scan(f"{LINKS}{_prefix(job.job_id)}", limit=1000)
        found = [_read(item)[0] for item in items]
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
        link, digest = _read(item)
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


def _written(link: Link, digest: str) -> str:
    return json.dumps(
        {
            "digest": digest,
            "job_id": link.job_id,
            "job_created": link.job_created,
            "by": link.by,
            "may_cancel": link.may_cancel,
            "created": link.created,
            "expires": link.expires,
        }
    )


def _read(item: KeyValue) -> tuple[Link, str]:
    held = json.loads(item.value)
    digest = held.pop("digest")
    return Link(id=item.key[len(LINKS) :], **held), digest
