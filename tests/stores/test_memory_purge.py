"""What a purge of the memory store removes besides jobs."""

from __future__ import annotations

from milepost.stores.ids import new_operation_id
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import Claim
from milepost.stores.retention import purge_older
from milepost.stores.sync_bridge import run_sync
from milepost.testing.fakes import FrozenClock


def test_purge_removes_expired_values_and_answers_to_claims() -> None:
    clock = FrozenClock()
    store = MemoryStore(clock=clock)
    for name, ttl in (("short", 60.0), ("long", 86_400.0), ("endless", None)):
        run_sync(store.kv_put(name, "x", ttl=ttl))
    run_sync(store.apply([], Claim("w1", {"q": None}, (), new_operation_id())))
    run_sync(purge_older(store, ttl=0))
    assert (len(store._memory.values), len(store._memory.claims)) == (3, 1)
    clock.advance(3601)
    run_sync(purge_older(store, ttl=0))
    assert (sorted(store._memory.values), len(store._memory.claims)) == (["endless", "long"], 0)
