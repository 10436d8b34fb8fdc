"""pytest fixtures for the tests of an application. Enable them with ``pytest_plugins = ["milepost.testing.plugin"]``.

Each fixture is empty, in memory, and discarded after its test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from milepost.app import Jobs
from milepost.manager.manager import AsyncJobManager
from milepost.manager.sync import InMemoryJobManager
from milepost.stores.memory.store import MemoryStore
from milepost.testing.fakes import FakeRun, FrozenClock
from milepost.testing.fakes import fake_run as _fake_run


@pytest.fixture
def frozen_clock() -> FrozenClock:
    """Return a clock that only moves when the test tells it to."""
    return FrozenClock()


@pytest.fixture
def job_manager() -> Iterator[InMemoryJobManager]:
    """Yield a JobManager."""
    manager = InMemoryJobManager()
    yield manager
    manager.close()


@pytest.fixture
async def async_job_manager() -> AsyncIterator[AsyncJobManager]:
    """Yield an AsyncJobManager. Needs a plugin for async fixtures, such as pytest-asyncio."""
    manager = AsyncJobManager(MemoryStore(blocking=False))
    yield manager
    await manager.close()


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    """Yield a Jobs: manager, handlers and worker in one."""
    jobs = Jobs("memory://")
    yield jobs
    jobs.close()


@pytest.fixture
def fake_run() -> FakeRun:
    """Return a Run without a store. `milepost.testing.fake_run` makes one with a checkpoint or metadata."""
    return _fake_run()
