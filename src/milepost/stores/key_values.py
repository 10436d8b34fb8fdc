"""The key-value part of the interface of a store."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from milepost.core.errors import InvalidInputError


class KeyValue(NamedTuple):
    """A stored value with its version, which the next `kv_put` must name."""

    key: str
    value: str
    version: int


class KeyValueStore(Protocol):
    """Small named values: API keys, workers, type schemas, run history, webhooks, idempotency keys."""

    async def kv_get(self, key: str) -> KeyValue | None:
        """Return the value of a key, or None if it does not exist or has expired."""

    async def kv_put(self, key: str, value: str, *, version: int | None = None, ttl: float | None = None) -> int | None:
        """Set a value if the key has this version (0: it does not exist; None: any).

        Return the new version, or None if the key has another one. `ttl` is in seconds from now. Raises InvalidInputError
        as `validate_entry`.
        """

    async def kv_delete(self, key: str) -> bool:
        """Delete a key and return whether it existed."""

    async def kv_scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[KeyValue]:
        """Return the values whose keys start with `prefix` and follow `after`, ordered by key (code points)."""


def validate_entry(key: str, value: str) -> None:
    """Check the texts of an entry. Raises InvalidInputError for a NUL (PostgreSQL) or a lone surrogate (all but memory),
    which not every store can keep.
    """
    for field, text in (("key", key), ("value", value)):
        if "\0" in text:
            raise InvalidInputError(field, "contains a NUL character; remove it")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInputError(field, "contains a lone surrogate; decode the text with errors='replace'") from None
