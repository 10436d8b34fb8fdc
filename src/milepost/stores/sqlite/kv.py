"""The key-value store: small named values with versions and expiry."""

from __future__ import annotations

from milepost.stores.protocol import KeyValue
from milepost.stores.sqlite.transaction import ReadTransaction, WriteTransaction


def get(db: ReadTransaction, key: str) -> KeyValue | None:
    """Return the value of a key, or None if it does not exist or has expired."""
    found = db.one("kv_get", (key, db.file.read_clock()))
    return KeyValue(*found) if found is not None else None


def put(tx: WriteTransaction, key: str, value: str, version: int | None, ttl: float | None) -> int | None:
    """Set a value if the key has this version; versions are unique across all keys."""
    item = get(tx, key)
    if version is not None and version != (item.version if item is not None else 0):
        return None
    new = (tx.number("kv_version") or 0) + 1
    tx.keep_number("kv_version", new)
    tx.run("kv_put", (key, value, new, None if ttl is None else tx.now + int(ttl * 1_000_000)))
    return new


def delete(tx: WriteTransaction, key: str) -> bool:
    """Delete a key and return whether it existed."""
    there = get(tx, key) is not None
    tx.run("kv_delete", (key,))
    return there


def scan(db: ReadTransaction, prefix: str, after: str, limit: int) -> list[KeyValue]:
    """Return the values whose keys start with `prefix` and follow `after`."""
    items: list[KeyValue] = []
    rows = db.each("kv_scan", (max(prefix, after), db.file.read_clock()))
    for key, value, version in rows:
        if not key.startswith(prefix) or len(items) >= limit:
            break
        if key > after:
            items.append(KeyValue(key, value, version))
    rows.close()
    return items
