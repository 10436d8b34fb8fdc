"""The program of each test: on every place, on each shared store, or on the store that a user has by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from milepost.settings import settings
from tests.cli.places import PLACES, STORES, Place
from tests.cli.programs import Program


def addresses(request: pytest.FixtureRequest, kind: str) -> dict[str, str]:
    """The environment in which a store of that kind, still empty, is used."""
    if kind != "redis":
        return {"MILEPOST_URL": request.getfixturevalue("sqlite_url")}
    return {
        "MILEPOST_URL": request.getfixturevalue("redis_url"),
        "MILEPOST_NAMESPACE": request.getfixturevalue("redis_namespace"),
    }


@pytest.fixture(params=PLACES)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The program on a SQLite file, on Redis and on a server, in this process."""
    environment = addresses(request, request.param)
    settings.forget()  # a process reads its environment once, and each place has its own
    with ExitStack() as open_, Place(tmp_path, environment.pop("MILEPOST_URL"), **environment) as place:
        if request.param == "server":
            open_.enter_context(place.served())
        yield place
    settings.forget()
    for command in getattr(request.function, "drives", ()):
        words = tuple(command.split())
        assert any(call[: len(words)] == words for call in place.called), f"{command} was not called"


@pytest.fixture
def working(where: Place) -> Iterator[Place]:
    """The same with a worker."""
    with where.worker():
        yield where


@pytest.fixture(params=STORES)
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    """The program on each shared store, as a process of its own."""
    with Program(tmp_path, **addresses(request, request.param)) as started:
        yield started


@pytest.fixture
def milepost(tmp_path: Path) -> Iterator[Program]:
    """The program on the default store of a user of its own, as a process of its own."""
    with Program(tmp_path) as started:
        yield started
