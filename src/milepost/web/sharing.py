"""Share links: a signed token that reads one job, and may cancel it, until it expires. Owns their form and their secret."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets

from milepost.stores.protocol import Store
from milepost.web.principals import CANCEL, READ, Principal

SECRET = "secret/share"
LONGEST = 30 * 86_400.0


class Sharing:
    """Signs and reads the share tokens of one store; its secret is on the shelf, so every server of it reads them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._secret: bytes | None = None

    async def token(self, job_id: str, seconds: float, *, may_cancel: bool = False) -> tuple[str, int]:
        """A token for one job, and when it expires in microseconds."""
        expires = await self._store.now() + int(min(seconds, LONGEST) * 1_000_000)
        claim = json.dumps([job_id, expires, may_cancel], separators=(",", ":")).encode()
        return f"{_text(claim)}.{_text(await self._signature(claim))}", expires

    async def find(self, token: str) -> Principal | None:
        """Who comes with a token; None for a forged or expired one."""
        first, _, last = token.partition(".")
        try:
            claim, signature = _bytes(first), _bytes(last)
        except (binascii.Error, ValueError):
            return None
        if len(token) > 1000 or not hmac.compare_digest(signature, await self._signature(claim)):
            return None
        job_id, expires, may_cancel = json.loads(claim)
        if expires <= await self._store.now():
            return None
        return Principal("share", frozenset({READ, CANCEL} if may_cancel else {READ}), job_id=job_id)

    async def _signature(self, claim: bytes) -> bytes:
        if self._secret is None:
            await self._store.shelf_put(SECRET, secrets.token_hex(32), version=0)
            item = await self._store.shelf_get(SECRET)
            assert item is not None, "it was put a moment ago and has no end"
            self._secret = bytes.fromhex(item.value)
        return hmac.digest(self._secret, claim, hashlib.sha256)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
