"""The rule of limits by limit key and partition, which callers change while jobs run."""

from __future__ import annotations

from collections.abc import Sequence

from milepost.core.limits import Limit, key_of
from milepost.stores.memory.state import MemoryState


def over_limit(memory: MemoryState, slot: str, held: Sequence[str] | None = None) -> str | None:
    """Return in which way there are more leases of a slot than its limits of this instant.

    `held` are the slots of the leases; if it is None, those of all leases, draining ones included.
    """
    key = key_of(slot)
    limit = memory.limits.get(key, Limit())
    if held is None:
        live = [record["slot"] for record in memory.records.values() if "lease" in record and record.get("slot")]
        held = live + [stop.slot for stop in memory.stops.values()]
    of_key, of_slot = sum(key_of(one) == key for one in held), held.count(slot)
    if limit.running is not None and of_key > limit.running:
        return f"{of_key} leases of {key}, limit {limit.running}"
    if limit.per_partition is not None and slot != key and of_slot > limit.per_partition:
        return f"{of_slot} leases of a partition of {key}, limit {limit.per_partition}"
    return None
