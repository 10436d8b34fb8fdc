"""The parts of kept results: how the heartbeat deletes them while runs end in other threads, and at the end of the process."""

from __future__ import annotations

import threading
from collections.abc import Callable

from milepost.core.record_codec import results_prefix
from milepost.run.results import PartWriter, part_key
from milepost.stores.memory.store import MemoryStore
from milepost.stores.sync_bridge import run_sync
from tests.waiting import PATIENCE


class BusyStore(MemoryStore):
    """A store in which something else happens while it deletes the first value."""

    meanwhile: Callable[[], None] | None = None

    async def kv_delete(self, key: str) -> bool:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return await super().kv_delete(key)


def completed(store: MemoryStore, writer: PartWriter, job_id: str) -> None:
    """End a job that has kept results in two parts."""
    for number in range(2):
        run_sync(store.kv_put(part_key(job_id, f"1.{number}"), "[]"))
    writer.discard(job_id, [{"parts": {"1": 2}}])


def left(store: MemoryStore) -> list[str]:
    """Return the keys of the parts that are still stored."""
    return [item.key for job_id in ("one", "two") for item in run_sync(store.kv_scan(results_prefix(job_id)))]


def test_parts_of_a_job_that_ends_meanwhile_are_deleted() -> None:
    """Regression: the last part of a job that completed during a request was forgotten, and stayed in the store."""
    store = BusyStore()
    writer = PartWriter(store, 60.0)
    completed(store, writer, "one")
    store.meanwhile = lambda: completed(store, writer, "two")
    writer.delete_outdated()
    assert left(store) == []


def test_parts_are_deleted_in_two_threads_at_the_end_of_a_process() -> None:
    """Regression: a script that ended just after its job printed "IndexError: pop from empty list"."""
    store = BusyStore()
    writer = PartWriter(store, 60.0)
    completed(store, writer, "one")
    store.meanwhile = writer.delete_outdated
    writer.delete_outdated()
    assert left(store) == []


class RunOfTwoThreads:
    """A run whose part a beat has taken, but not handed on yet, when the thread of the ended code looks for it."""

    job_id = "one"

    def __init__(self) -> None:
        self.parts = [(part_key(self.job_id, "1"), "[]")]
        self.taken, self.released = threading.Event(), threading.Event()

    def _take_parts(self, *, at_end: bool = False) -> list[tuple[str, str]]:
        parts, self.parts = self.parts, []
        if parts:
            self.taken.set()
            assert self.released.wait(PATIENCE)
        return parts


def test_end_of_a_run_waits_for_the_part_that_a_beat_is_taking() -> None:
    """A job that was suspended in this moment continued without the part, and processed its items again."""
    store, run = MemoryStore(), RunOfTwoThreads()
    writer = PartWriter(store, 60.0)
    found: list[str] = []

    def end() -> None:
        writer.finish(run)
        found.extend(left(store))

    beat, ended = threading.Thread(target=writer.write, args=([run],)), threading.Thread(target=end)
    beat.start()
    assert run.taken.wait(PATIENCE)
    ended.start()
    ended.join(0.2)  # it must not be over yet; if it is, it has found nothing
    run.released.set()
    beat.join(PATIENCE)
    ended.join(PATIENCE)
    assert found == [part_key("one", "1")]
