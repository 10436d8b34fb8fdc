"""Fixtures for the tests of an application; turned on with ``pytest_plugins = ["milepost.testing.plugin"]`` in a conftest.

Each is empty, in memory, and gone with its test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from milepost.app import Jobs
from milepost.manager.asynchronous import AsyncJobManager
from milepost.manager.synchronous import InMemoryJobManager
from milepost.stores.memory import MemoryStore
from milepost.testing.clock import FrozenClock
from milepost.testing.runs import FakeRun
from milepost.testing.runs import fake_run as _fake_run


@pytest.fixture
def frozen_clock() -> FrozenClock:
    """A clock that stands still until the test moves it."""
    return FrozenClock()


@pytest.fixture
def job_manager() -> Iterator[InMemoryJobManager]:
    """A JobManager."""
    manager = InMemoryJobManager()
    yield manager
    manager.close()


@pytest.fixture
async def async_job_manager() -> AsyncIterator[AsyncJobManager]:
    """An AsyncJobManager; needs a plugin that runs asynchronous fixtures, such as pytest-asyncio."""
    manager = AsyncJobManager(MemoryStore(blocking=False))
    yield manager
    await manager.close()


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    """A Jobs: manager, handlers and worker in one."""
    jobs = Jobs("memory://")
    yield jobs
    jobs.close()


@pytest.fixture
def fake_run() -> FakeRun:
    """A Run that reports to nobody; `milepost.testing.fake_run` makes one with a checkpoint or metadata."""
    return _fake_run()
