"""What only the store in memory may meet: it begins anew with its process, while those who follow it go on."""

from __future__ import annotations

import pytest

from milepost.core import lifecycle as plans
from milepost.stores.driving import drive
from milepost.stores.ids import new_op
from milepost.stores.memory import MemoryStore
from milepost.stores.protocol import Write
from milepost.testing.conformance.harness import caller_job


def filled(store: MemoryStore, many: int) -> MemoryStore:
    drive(store.apply([Write(f"j{n}", plans.plan_create(caller_job(), new_op())) for n in range(many)]))
    return store


@pytest.mark.parametrize("timeout", [0.0, 3600.0])
def test_a_position_of_an_earlier_process_is_lost(timeout: float) -> None:
    before = drive(filled(MemoryStore(), 5).feed(None)).position
    store = filled(MemoryStore(), 2)
    news = drive(store.feed(before, timeout=timeout))
    assert (news.events, news.lost) == ([], True)
    filled(store, 4)
    assert [event.job_id for event in drive(store.feed(news.position)).events] == ["j2", "j3"]
