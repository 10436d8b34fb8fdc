"""Reading all named values of a kind."""

from __future__ import annotations

from milepost.stores.protocol import KeyValue, KeyValueStore

PAGE = 1000


async def scan_all(store: KeyValueStore, prefix: str, after: str = "") -> list[KeyValue]:
    """Return all values whose keys start with `prefix` and follow `after`, ordered by key."""
    found = page = await store.kv_scan(prefix, after, PAGE)
    while len(page) == PAGE:
        page = await store.kv_scan(prefix, page[-1].key, PAGE)
        found = found + page
    return found
