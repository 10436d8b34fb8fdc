"""The key-value part of the memory store."""

from __future__ import annotations

from milepost.stores.key_values import KeyValue, validate_entry
from milepost.stores.memory.state import MemoryState


class MemoryKeyValues:
    """The named values of a memory store."""

    _memory: MemoryState

    async def kv_get(self, key: str) -> KeyValue | None:
        with self._memory.lock:
            value, version, until = self._memory.values.get(key, ("", 0, 0))
            exists = version and (until is None or until > self._memory.tick())
            return KeyValue(key, value, version) if exists else None

    async def kv_put(self, key: str, value: str, *, version: int | None = None, ttl: float | None = None) -> int | None:
        validate_entry(key, value)
        with self._memory.lock:
            memory = self._memory
            item = await self.kv_get(key)
            if version is not None and version != (item.version if item is not None else 0):
                return None
            return memory.put_value(key, value, None if ttl is None else memory.tick() + int(ttl * 1_000_000))

    async def kv_delete(self, key: str) -> bool:
        with self._memory.lock:
            there = await self.kv_get(key) is not None
            self._memory.delete_value(key)
            return there

    async def kv_scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[KeyValue]:
        with self._memory.lock:
            items: list[KeyValue] = []
            for key in self._memory.keys_after(prefix, after):
                if len(items) >= limit:
                    break
                if (item := await self.kv_get(key)) is not None:
                    items.append(item)
            return items
