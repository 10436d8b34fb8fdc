"""A runtime whose clock and ids belong to the test."""

from __future__ import annotations

import random
import threading

import pytest

from milepost import JobManager, Run, Settings
from milepost.run.runtime import Runtime
from milepost.stores.clock import Clock
from milepost.stores.ids import Ids
from milepost.stores.memory.store import MemoryStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FrozenClock
from tests.waiting import PATIENCE, until

LEASE = 30.0


class OwnClock(Clock):
    """A clock that only moves when the test moves it; threads wait until they are woken."""

    def __init__(self) -> None:
        self.store = FrozenClock()
        self.now = 100.0
        self.waits = 0

    def monotonic(self) -> float:  # type: ignore[override]
        return self.now

    def time(self) -> float:  # type: ignore[override]
        return self.store() / 1_000_000

    def wait(self, event: threading.Event, timeout: float | None = None) -> bool:  # type: ignore[override]
        self.waits += 1
        return event.wait(PATIENCE)

    def advance(self, seconds: float) -> None:
        """Move the clock of the process and that of the store."""
        self.now += seconds
        self.store.advance(seconds)


def own_manager(clock: OwnClock, seed: int = 1) -> JobManager:
    """Return a manager in memory on the clock of the test, with the ids of a seed."""
    ids = Ids(random.Random(seed).randbytes, lambda: clock.store() * 1000)
    store = MemoryStore(clock=clock.store)
    return JobManager.of(Runtime(store, Settings(lease=LEASE), 60.0, clock=clock, ids=ids))


def expires(manager: JobManager, run: Run) -> int:
    """Return when the lease of a run ends, in microseconds."""
    job = run_sync(manager.store.get(run.job_id))
    assert job is not None
    return int(job.record["lease"])


def end_heartbeat(manager: JobManager, clock: OwnClock) -> None:
    """End the thread, which has no run."""
    clock.advance(2.0)
    manager.runtime.heartbeat.wake()
    until(lambda: not manager.runtime.has_heartbeat)


def test_lease_is_renewed_at_the_time_of_the_test() -> None:
    clock = OwnClock()
    manager = own_manager(clock)

    with manager.track() as run:
        first = expires(manager, run)
        clock.advance(20.0)
        manager.runtime.heartbeat.beat()
        assert expires(manager, run) == first + 20_000_000
        clock.advance(1.0)
        manager.runtime.heartbeat.beat()
        assert expires(manager, run) == first + 20_000_000, "a lease is renewed four times while it lasts"
    end_heartbeat(manager, clock)


def test_delay_of_heartbeat_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A task that computed for longer than its lease on a gevent pool ran again, and no log said why."""
    clock = OwnClock()
    manager = own_manager(clock)
    caplog.set_level("WARNING", "milepost.heartbeat")
    with manager.track():
        until(lambda: clock.waits == 1)
        for number, seconds in enumerate((LEASE / 2, LEASE / 2 + 1), 2):
            clock.advance(seconds)
            manager.runtime.heartbeat.wake()
            until(lambda number=number: clock.waits == number)
    end_heartbeat(manager, clock)
    assert [text.partition(":")[0] for text in caplog.messages] == ["heartbeat delayed by 16 s, with leases of 30 s"]


def test_ids_of_a_seed_are_the_same_again() -> None:
    made = [own_manager(OwnClock(), seed).create_job().job_id for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


def test_managers_of_one_runtime_share_its_heartbeat() -> None:
    runtime = Runtime(MemoryStore(), Settings(), 60.0)
    other = runtime.with_store(runtime.store.with_blocking(blocking=False))
    assert other.heartbeat is runtime.heartbeat


def test_lease_that_ends_before_the_next_beat_is_renewed_at_once() -> None:
    """A worker that got the reply to its claim late lost the job if the lease ended before the next beat."""
    clock = OwnClock()
    manager = own_manager(clock)
    heartbeat = manager.runtime.heartbeat
    with manager.track() as run:
        until(lambda: clock.waits == 1)
        clock.advance(LEASE - heartbeat.interval)
        heartbeat.beat()
        renewed = expires(manager, run)
        clock.advance(1.0)
        heartbeat.add(run, "continue", clock.now - LEASE + heartbeat.interval)
        until(lambda: clock.waits == 2)
        assert expires(manager, run) == renewed + 1_000_000
    end_heartbeat(manager, clock)
