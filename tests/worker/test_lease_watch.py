"""A run whose heartbeat does not reach the store stops when its lease is over, on every store."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from milepost import JobReleased, Run
from milepost.stores.protocol import Store
from tests.waiting import PATIENCE
from tests.worker.conftest import MakeJobs
from tests.worker.job_assertions import Signals

pytestmark = pytest.mark.timing

LEASE = 0.6


@contextlib.contextmanager
def stuck_heartbeat(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Yield a function after which the next beat waits for the store until the end of the block."""
    real, stuck, over = store.heartbeat, threading.Event(), threading.Event()

    async def heartbeat(*args: Any) -> Any:
        if stuck.is_set():
            assert over.wait(PATIENCE)
        return await real(*args)

    monkeypatch.setattr(store, "heartbeat", heartbeat)
    try:
        yield stuck.set
    finally:
        over.set()


@pytest.mark.parametrize("is_async", [False, True])
def test_run_stops_with_its_lease_while_heartbeat_hangs(
    make_jobs: MakeJobs, signals: Signals, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """Regression: a partitioned worker continued for up to 32 s next to the run that had taken over its job."""
    jobs = make_jobs(lease=LEASE)
    stops: list[tuple[float, str]] = []

    def work(run: Run) -> str:
        if run.attempt > 1 or stops:
            return "second run"
        signals.began.set()
        try:
            while True:
                run.check()
                time.sleep(0.005)
        except JobReleased as stop:
            stops.append((time.monotonic(), str(stop)))
            raise

    async def awork(run: Run) -> str:
        if run.attempt > 1 or stops:
            return "second run"
        signals.began.set()
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            stops.append((time.monotonic(), str(run._stop_reasons[0])))
            raise
        return "not stopped"

    jobs.job("work")(awork if is_async else work)
    store = jobs.runtime.heartbeat.store
    with stuck_heartbeat(store, monkeypatch) as stick, jobs.run_workers():
        jobs.submit("work")
        assert signals.began.wait(PATIENCE)
        stick()
        wait_for(stops)  # the beat is stuck all the while
    assert stops[0][1] == "lease not renewed in time: the store was unavailable, or this process stood still"


def wait_for(stops: list[tuple[float, str]]) -> None:
    """Wait until a run is stopped."""
    deadline = time.monotonic() + PATIENCE / 4
    while not stops:
        assert time.monotonic() < deadline, "the run was not stopped"
        time.sleep(0.005)
