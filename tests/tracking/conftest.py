"""A manager on each kind of store, with short times."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from milepost import InMemoryJobManager, JobManager, Run, Settings
from milepost.stores.opening import open_store

_numbers = itertools.count(1)


Track = Callable[..., Any]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty store of each kind."""
    kind: str = request.param
    if kind == "memory":
        return "memory://"
    address: str = request.getfixturevalue(f"{kind}_url")
    return address


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test has used."""
    return f"tracking{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def options(namespace: str) -> Settings:
    """Short times."""
    return Settings(namespace=namespace, lease=0.6, sweep=0.1, pulse=0.02)


@pytest.fixture
def manager(url: str, options: Settings) -> Iterator[JobManager]:
    """A manager of the blocking kind."""
    made = JobManager(open_store(url, namespace=options.namespace), options=options)
    yield made
    made.close()


@pytest.fixture
def track() -> Iterator[Track]:
    """Make a tracked block in memory: ``track(capture="stdout")``."""
    made: list[JobManager] = []

    def make(**options: Any) -> Any:
        manager = InMemoryJobManager(options=Settings(pulse=0.02, **options))
        made.append(manager)
        return manager.track("test")

    yield make
    for manager in made:
        manager.close()


def names(run: Run) -> list[tuple[str, str | None]]:
    """The stages of a run, each with the one that it is in."""
    return [(stage.name, stage.parent) for stage in run.stages]


def said(run: Run) -> list[str]:
    """The log lines of a run."""
    return list(run.recent_log)
