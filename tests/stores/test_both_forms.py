"""The blocking and the async form of a store, which threads may ask for at the same time."""

from __future__ import annotations

from milepost.stores.factory import open_store
from milepost.stores.sync_bridge import run_sync
from tests.forking import at_once


def test_threads_get_one_other_form_of_a_store(url: str, namespace: str) -> None:
    """Regression: in memory a thread could get a store without its jobs, "'MemoryStore' object has no attribute '_memory'".

    Elsewhere each got another one, of which only the last was closed with the store.
    """
    for _ in range(20):
        store = open_store(url, namespace=namespace if "redis" in url else "milepost", blocking=False)
        found = []

        def use(store=store, found=found) -> None:
            other = store.with_blocking(blocking=True)
            found.append(other)
            assert run_sync(other.limits()) == {}

        at_once(use, threads=4)
        assert len(set(map(id, found))) == 1
        run_sync(found[0].close())
