"""Paths of the explorer give the same records on memory, SQLite, Redis and PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path as File
from typing import NamedTuple

import pytest

from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import Store
from milepost.stores.sqlite import SQLiteStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FrozenClock
from tests.conformance import moved_postgres_clock
from tests.conformance.moved_clocks import ServerClock, clocked_store
from tests.explorer.actors import Actors, Budgets
from tests.explorer.exploration import Explorer, Path
from tests.explorer.world import World
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer

SEARCHES = (
    (Budgets(crashes=1), False),
    (Budgets(cancels=1, retries=1), False),
    (Budgets(cancels=1, deletes=1, repeats=1), False),
    (Budgets(cancels=1), True),
)
"""Budgets, and whether the job has an earliest and a latest start."""
pytestmark = pytest.mark.slow
ALL = Budgets(*(1 for _ in Budgets._fields))
WRITTEN_AT = re.compile(r'"at":"[^"]*"')
"""The time in a crash report is that of the process which writes it."""
MICROS = re.compile(r"(?<=\d{10})\d{6}\b")
"""In Redis each change of a store has its own microsecond."""
FENCE = re.compile(r"\d+:(?=n\d{10})")
"""Stores choose their own fences; only their order is part of the contract."""

Open = Callable[[], tuple[Store, FrozenClock]]
"""Opens a new, empty store."""


class Trip(NamedTuple):
    """A path of a job, which may have an earliest and a latest start."""

    timed: bool
    path: Path


@pytest.fixture(scope="module")
def trips() -> list[Trip]:
    """Return paths that show each kind of step: each transition by each action, accepted, refused and repeated."""
    shown: dict[Hashable, Trip] = {}
    for budgets, timed in SEARCHES:
        found = Explorer(budgets, timed=timed).run(most=3_000)
        assert found.violations == []
        for kind, path in found.covering.items():
            shown.setdefault(kind, Trip(timed, path))
    chosen: list[Trip] = []
    for trip in sorted(shown.values(), key=lambda trip: len(trip.path), reverse=True):
        if not any((trip.timed, trip.path) == (one.timed, one.path[: len(trip.path)]) for one in chosen):
            chosen.append(trip)
    return chosen


def history(store: Store, clock: FrozenClock, trip: Trip) -> Iterator[str]:
    """Perform a path and yield what it wrote: each change, whether it was accepted, and the job after it."""
    world, actors = World(store, clock, timed=trip.timed), Actors(ALL)
    for action in trip.path:
        actors, steps = world.perform(actors, action)
        yield FENCE.sub("", f"{action.name}: {actors.workers}")
        for step in steps:
            after = "gone" if step.after is None else str(sorted(step.after.items()))
            stopping = step.stopping and (step.stopping.token, step.stopping.expires)
            text = f"{step.name}, {step.accepted}, {step.repeated}: {after}, {stopping}"
            yield MICROS.sub("", FENCE.sub("", WRITTEN_AT.sub("", text)))


def follow(trips: Sequence[Trip], opened: Open) -> None:
    for trip in trips:
        clock = FrozenClock()
        expected = list(history(MemoryStore(clock=clock), clock, trip))
        store, moved = opened()
        try:
            assert list(history(store, moved, trip)) == expected, trip
        finally:
            run_sync(store.close())


def test_paths_cover_the_lifecycle(trips: Sequence[Trip]) -> None:
    assert len(trips) > 80
    assert {"receipt", "write sweep", "deliver again", "child crash", "delete"} <= {
        action.name for trip in trips for action in trip.path
    }


def test_sqlite_follows_the_paths(trips: Sequence[Trip], tmp_path: File) -> None:
    files = (tmp_path / f"{number}.db" for number in range(len(trips)))

    def opened() -> tuple[Store, FrozenClock]:
        clock = FrozenClock()
        return SQLiteStore(next(files), blocking=True, synchronous="NORMAL", clock=clock), clock

    follow(trips, opened)


@pytest.mark.service("redis-server")
def test_redis_follows_the_paths(trips: Sequence[Trip], redis_server: RedisServer, redis_namespace: str) -> None:
    clock = ServerClock(redis_server, redis_namespace)
    names = (f"{redis_namespace}.{number}" for number in range(len(trips)))

    def opened() -> tuple[Store, FrozenClock]:
        clock.move_to(FrozenClock()())
        return clocked_store(redis_server.url, next(names), clock, blocking=True), clock

    follow(trips, opened)


@pytest.mark.service("postgresql")
def test_postgres_follows_the_paths(trips: Sequence[Trip], postgres_server: PostgresServer) -> None:
    def opened() -> tuple[Store, FrozenClock]:
        clock = moved_postgres_clock.ServerClock(postgres_server, "explored")
        return moved_postgres_clock.clocked_store(clock, blocking=True), clock

    follow(trips, opened)


def test_store_that_differs_is_found(trips: Sequence[Trip]) -> None:
    """Control: a store on another clock writes other records."""
    clock = FrozenClock(1_750_000_001_000_000)
    with pytest.raises(AssertionError):
        follow(trips, lambda: (MemoryStore(clock=clock), clock))
