"""The `milepost` command in tests: on every kind of store, on each shared store, or on the default store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from milepost.settings import settings
from tests.cli.stores_fixture import STORE_KINDS, STORES, StoreFixture
from tests.cli.subprocesses import CommandRunner
from tests.postgres_server import PostgresServer

ON_POSTGRES = pytest.param("postgres", marks=[pytest.mark.slow, pytest.mark.service("postgresql")])


def addresses(request: pytest.FixtureRequest, kind: str) -> dict[str, str]:
    """Return the environment variables that select an empty store of that kind."""
    if kind == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        return {"MILEPOST_URL": server.url(), "MILEPOST_NAMESPACE": server.emptied("cli")}
    if kind != "redis":
        return {"MILEPOST_URL": request.getfixturevalue("sqlite_url")}
    return {
        "MILEPOST_URL": request.getfixturevalue("redis_url"),
        "MILEPOST_NAMESPACE": request.getfixturevalue("redis_namespace"),
    }


@pytest.fixture(params=[*STORE_KINDS, ON_POSTGRES])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreFixture]:
    """Yield the command on a SQLite file, on Redis, on a server and on PostgreSQL, run in this process."""
    environment = addresses(request, request.param)
    settings.reload()  # a process reads its environment once, and each place has its own
    with ExitStack() as open_, StoreFixture(tmp_path, environment.pop("MILEPOST_URL"), **environment) as place:
        if request.param == "server":
            open_.enter_context(place.served())
        yield place
    settings.reload()
    for command in getattr(request.function, "covers", ()):
        words = tuple(command.split())
        assert any(call[: len(words)] == words for call in place.called), f"{command} was not called"


@pytest.fixture
def working(where: StoreFixture) -> Iterator[StoreFixture]:
    """Yield the command with a worker."""
    with where.worker():
        yield where


@pytest.fixture
def filled(where: StoreFixture) -> StoreFixture:
    """Return a store with one job of each status."""
    for job_id, status in (("a-done", "completed"), ("a-bad", "failed"), ("b-gone", "cancelled"), ("c-now", "running")):
        where.fill(job_id, status)
    where.fill("d-next", None)
    return where


@pytest.fixture(params=STORES)
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CommandRunner]:
    """Yield the command on each shared store, run as a subprocess."""
    with CommandRunner(tmp_path, **addresses(request, request.param)) as started:
        yield started


@pytest.fixture
def milepost(tmp_path: Path) -> Iterator[CommandRunner]:
    """Yield the command on the default store of a separate user, run as a subprocess."""
    with CommandRunner(tmp_path) as started:
        yield started
