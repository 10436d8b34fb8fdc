"""A block that is started while another process has its key, whose lease has ended in an outage of the store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from milepost import JobManager, Run, Settings
from milepost.core.errors import LeaseHeldError
from milepost.run.runtime import Runtime
from tests.run.test_runtime import LEASE, OwnClock, end_heartbeat, own_manager
from tests.waiting import until

STEP = 0.5
HEARTBEAT = 0.01
RENEWED_WITHIN = LEASE / 4 + HEARTBEAT + 0.5


def start_block(manager: JobManager) -> str:
    """Run an empty block and return the id of its job."""
    with manager.track("nightly", unique_key="nightly") as run:
        return run.job_id


def start_async_block(manager: JobManager) -> str:
    """Do it in an event loop."""

    async def start() -> str:
        async with manager._async.track("nightly", unique_key="nightly") as run:
            return run.job_id

    return asyncio.run(start())


class Starting:
    """A block that another process is starting, in a thread."""

    def __init__(self, manager: JobManager, start: Callable[[JobManager], str], clock: OwnClock) -> None:
        self.manager = JobManager.of(
            Runtime(manager.store, Settings(lease=LEASE, heartbeat=HEARTBEAT), 60.0, clock=clock)
        )
        self.looks = 0
        self.outcome: list[str | LeaseHeldError] = []
        self._start = start
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.outcome.append(self._start(self.manager))
        except LeaseHeldError as error:
            self.outcome.append(error)

    def look(self) -> None:
        """Wait until it has looked at the job, and begun the next look, or is done."""
        seen = self.looks
        until(lambda: self.looks > seen + 1 or not self.thread.is_alive())

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count its looks, and begin."""
        for store in (self.manager.store, self.manager._async.store):
            get = store.get

            async def counting(job_id: str, get: object = get) -> object:
                self.looks += threading.current_thread() is self.thread
                return await get(job_id)  # type: ignore[operator]

            monkeypatch.setattr(store, "get", counting)
        self.thread.start()


@pytest.fixture(params=[start_block, start_async_block], ids=["sync", "async"])
def start(request: pytest.FixtureRequest) -> Callable[[JobManager], str]:
    """Return what starts a block."""
    function: Callable[[JobManager], str] = request.param
    return function


def test_block_does_not_take_the_lease_of_a_live_one_after_an_outage(
    start: Callable[[JobManager], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage, a second start took the job of a script that still ran, which was stopped."""
    clock = OwnClock()
    manager = own_manager(clock)
    with manager.track("nightly", unique_key="nightly") as run:
        clock.advance(2 * LEASE)  # without a request
        second = Starting(manager, start, clock)
        second.watch(monkeypatch)
        second.look()
        clock.advance(STEP)
        manager.runtime.heartbeat.beat()
        second.thread.join()
        assert isinstance(second.outcome[0], LeaseHeldError)
        run.check()
    end_heartbeat(manager, clock)


def test_block_takes_the_lease_of_a_lost_one_that_could_have_renewed_it(
    start: Callable[[JobManager], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = OwnClock()
    manager = own_manager(clock)
    lost: list[Run] = []
    block = manager.track("nightly", unique_key="nightly")
    thread = threading.Thread(target=lambda: lost.append(block.__enter__()))  # a run is current in its thread
    thread.start()
    thread.join()
    clock.advance(2 * LEASE)
    second, seconds = Starting(manager, start, clock), 0.0
    second.watch(monkeypatch)
    second.look()
    while second.thread.is_alive():
        clock.advance(STEP)
        seconds += STEP
        second.look()
    assert second.outcome == [lost[0].job_id]
    assert RENEWED_WITHIN <= seconds <= RENEWED_WITHIN + 2 * STEP
    manager.runtime.heartbeat.remove(lost[0])
    end_heartbeat(manager, clock)
