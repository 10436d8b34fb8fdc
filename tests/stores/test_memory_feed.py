"""Feed positions of a memory store of an earlier process."""

from __future__ import annotations

import pytest

from milepost.core import transitions as plans
from milepost.stores.ids import new_operation_id
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import caller_job


def filled(store: MemoryStore, many: int) -> MemoryStore:
    run_sync(store.apply([Write(f"j{n}", plans.plan_create(caller_job(), new_operation_id())) for n in range(many)]))
    return store


@pytest.mark.parametrize("timeout", [0.0, 3600.0])
def test_feed_position_of_earlier_process_is_lost(timeout: float) -> None:
    before = run_sync(filled(MemoryStore(), 5).feed(None)).position
    store = filled(MemoryStore(), 2)
    news = run_sync(store.feed(before, timeout=timeout))
    assert (news.events, news.lost) == ([], True)
    filled(store, 4)
    assert [event.job_id for event in run_sync(store.feed(news.position)).events] == ["j2", "j3"]
