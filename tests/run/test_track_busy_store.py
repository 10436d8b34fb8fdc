"""A block that waits for another one with its key, while many other jobs change."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from milepost import JobManager, Settings
from milepost.core.job import Job
from milepost.run.runtime import Runtime
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import FeedEvents
from tests.run.test_track_outage import start_async_block, start_block
from tests.waiting import until

OTHERS = 20


class Asked(MemoryStore):
    """A store that counts the requests of each thread."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = Counter[tuple[str, int]]()

    async def get(self, job_id: str) -> Job | None:
        self.asked["get", threading.get_ident()] += 1
        return await super().get(job_id)

    async def feed(self, position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> FeedEvents:
        self.asked["feed", threading.get_ident()] += 1
        return await super().feed(position, limit=limit, timeout=timeout)


@pytest.mark.parametrize("start", [start_block, start_async_block], ids=["sync", "async"])
def test_changes_of_other_jobs_do_not_make_it_ask_again(start: Callable[[JobManager], str]) -> None:
    """On a busy store a block that waited read its job, and the time, at each change of any other one."""
    store = Asked()
    settings = Settings(lease=600.0, heartbeat=60.0)
    manager = JobManager.of(Runtime(store, settings, 60.0))
    outcome: list[str] = []
    with manager.track("nightly", unique_key="nightly") as run:
        second = threading.Thread(target=lambda: outcome.append(start(JobManager.of(Runtime(store, settings, 60.0)))))
        second.start()
        asked = lambda method: store.asked[method, second.ident or 0]  # noqa: E731
        until(lambda: asked("feed") == 2)
        for number in range(OTHERS):
            manager.create_job()
            until(lambda number=number: asked("feed") == 3 + number)
        assert asked("get") == 1
    second.join()
    assert outcome
    assert outcome != [run.job_id]
