"""Fixtures: a manager on each kind of store, with short intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from milepost import InMemoryJobManager, JobManager, Run, Settings
from milepost.stores.factory import open_store

Track = Callable[..., Any]


@pytest.fixture
def options(namespace: str) -> Settings:
    """Return settings with short intervals, and a lease that outlasts a pause of the machine."""
    return Settings(namespace=namespace, lease=10.0, sweep=0.1, heartbeat=0.02)


@pytest.fixture
def manager(url: str, options: Settings) -> Iterator[JobManager]:
    """Yield a blocking manager."""
    made = JobManager(open_store(url, namespace=options.namespace), options=options)
    yield made
    made.close()


@pytest.fixture
def track() -> Iterator[Track]:
    """Return a function that makes a tracked block in memory: ``track(capture="stdout")``."""
    made: list[JobManager] = []

    def make(**options: Any) -> Any:
        manager = InMemoryJobManager(options=Settings(heartbeat=0.02, **options))
        made.append(manager)
        return manager.track("test")

    yield make
    for manager in made:
        manager.close()


def names(run: Run) -> list[tuple[str, str | None]]:
    """Return the stages of a run, each with the name of its parent."""
    return [(stage.name, stage.parent) for stage in run.stages]


def log_lines(run: Run) -> list[str]:
    """Return the log lines of a run."""
    return list(run.recent_log)
