"""Reading all named values of a kind."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from milepost.stores.protocol import KeyValue, KeyValueStore

PAGE = 1000


async def scan_all(store: KeyValueStore, prefix: str, after: str = "") -> AsyncGenerator[KeyValue]:
    """Yield all values whose keys start with `prefix` and follow `after`, ordered by key; keep one page in memory."""
    while True:
        page = await store.kv_scan(prefix, after, PAGE)
        for item in page:
            yield item
        if len(page) < PAGE:
            return
        after = page[-1].key
