"""Reading all values of a kind, however many there are."""

from __future__ import annotations

import pytest

from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import KeyValue
from milepost.stores.scan import PAGE, scan_all
from milepost.stores.sync_bridge import run_sync
from milepost.worker.registry import WorkerEntry, read_workers, write_worker


class Counting(MemoryStore):
    """A store that counts the requests for values."""

    scans = 0

    async def kv_scan(self, prefix: str, after: str = "", limit: int = PAGE) -> list[KeyValue]:
        self.scans += 1
        return await super().kv_scan(prefix, after, limit)


async def read_all(store: MemoryStore, prefix: str, after: str = "") -> list[str]:
    return [item.value async for item in scan_all(store, prefix, after)]


@pytest.mark.parametrize(
    ("values", "requests"),
    [(0, 1), (1, 1), (PAGE - 1, 1), (PAGE, 2), (PAGE + 1, 2), (2 * PAGE + 1, 3)],
)
def test_all_values_are_read_by_one_request_for_each_page(values: int, requests: int) -> None:
    store = Counting()
    for number in range(values):
        run_sync(store.kv_put(f"kind/{number:05}", str(number)))
    run_sync(store.kv_put("other", ""))
    assert run_sync(read_all(store, "kind/")) == [str(number) for number in range(values)]
    assert store.scans == requests


def test_values_after_a_key_are_read() -> None:
    store = Counting()
    for name in "abc":
        run_sync(store.kv_put(f"kind/{name}", name))
    assert run_sync(read_all(store, "kind/", "kind/a")) == ["b", "c"]


def test_each_of_many_workers_is_listed() -> None:
    """Of more than a thousand workers only the first thousand were shown, and the others counted as gone."""
    store = MemoryStore()
    for number in range(PAGE + 1):
        entry = WorkerEntry(f"host:{number}", "host", number, since=0.0, seen=0.0)
        run_sync(write_worker(store, entry, 60.0))
    assert len(run_sync(read_workers(store))) == PAGE + 1
