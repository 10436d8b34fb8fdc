"""pytest fixtures for the tests of an application. Enable them with ``pytest_plugins = ["milepost.testing.plugin"]``.

Each fixture is empty, in memory, and discarded after its test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from milepost.app import AsyncJobs, Jobs
from milepost.manager.manager import AsyncJobManager
from milepost.manager.sync import InMemoryJobManager
from milepost.stores.memory.state import system_micros
from milepost.stores.memory.store import MemoryStore
from milepost.testing.fakes import FakeRun, FrozenClock
from milepost.testing.fakes import fake_run as _fake_run
from milepost.testing.jobs_under_test import (
    AsyncJobsUnderTest,
    JobsUnderTest,
    async_jobs_under_test,
    jobs_under_test,
)


@pytest.fixture
def milepost_app() -> Jobs | AsyncJobs | None:
    """Return the application whose handlers the test runs. Override it in your conftest: ``return myapp.jobs``."""
    return None


@pytest.fixture
def frozen_clock() -> FrozenClock:
    """Return a clock that starts at the current time and only moves when the test tells it to."""
    return FrozenClock(system_micros())


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
def jobs(milepost_app: Jobs | AsyncJobs | None, frozen_clock: FrozenClock) -> Iterator[JobsUnderTest]:
    """Yield a Jobs without a worker, with the handlers of `milepost_app`, whose submits it sees: `drain` runs them."""
    with jobs_under_test(milepost_app, frozen_clock) as jobs:
        yield jobs


@pytest.fixture
async def async_jobs(
    milepost_app: Jobs | AsyncJobs | None, frozen_clock: FrozenClock
) -> AsyncIterator[AsyncJobsUnderTest]:
    """Yield the same as an AsyncJobs. Needs a plugin for async fixtures, such as pytest-asyncio."""
    with async_jobs_under_test(milepost_app, frozen_clock) as jobs:
        yield jobs
        await jobs.close()


@pytest.fixture
def fake_run() -> FakeRun:
    """Return a Run without a store. `milepost.testing.fake_run` makes one with a checkpoint or metadata."""
    return _fake_run()
