"""The shelf: small values by name, with versions and a time to live. Knows no job."""

from __future__ import annotations

from milepost.stores.protocol import Item
from milepost.stores.sqlite.transaction import Reading, Transaction


def get(db: Reading, key: str) -> Item | None:
    """The value of a key that has not expired."""
    found = db.one("shelf_get", (key, db.place.tick()))
    return Item(*found) if found is not None else None


def put(tx: Transaction, key: str, value: str, version: int | None, ttl: float | None) -> int | None:
    """Put a value if the key has that version. Versions grow over the whole shelf, so that none comes twice."""
    item = get(tx, key)
    if version is not None and version != (item.version if item is not None else 0):
        return None
    new = (tx.number("shelf") or 0) + 1
    tx.keep_number("shelf", new)
    tx.run("shelf_put", (key, value, new, None if ttl is None else tx.now + int(ttl * 1_000_000)))
    return new


def delete(tx: Transaction, key: str) -> bool:
    """Take a key away; whether it was there."""
    there = get(tx, key) is not None
    tx.run("shelf_delete", (key,))
    return there


def scan(db: Reading, prefix: str, after: str, limit: int) -> list[Item]:
    """The items whose keys begin with `prefix` and come after `after`."""
    items: list[Item] = []
    rows = db.each("shelf_scan", (max(prefix, after), db.place.tick()))
    for key, value, version in rows:
        if not key.startswith(prefix) or len(items) >= limit:
            break
        if key > after:
            items.append(Item(key, value, version))
    rows.close()
    return items
