"""I32 with real processes: eight sweepers with skewed clocks, killed at random, fire each tick exactly once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from milepost.core.schedule import Schedule
from milepost.core.transitions import plan_delete
from milepost.manager.validation import submit_fields
from milepost.stores.factory import open_store
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Store, Write
from milepost.stores.sync_bridge import run_sync
from tests.postgres_server import PostgresServer
from tests.waiting import PATIENCE

pytestmark = pytest.mark.timing

SWEEPERS = 8
SKEWS = (-20.0, -5.0, -1.0, 0.0, 0.0, 1.0, 5.0, 20.0)


def fired_under_kills(
    store: Store, url: str, namespace: str, ticks: int, speed: float
) -> tuple[Counter[str], Schedule]:
    """Fire ticks, this many in a second, while sweepers are killed and jobs are deleted; return the created jobs."""
    chance, base = random.Random(7), time.time()

    def start(number: int) -> subprocess.Popen[bytes]:
        args = [url, namespace, str(speed), str(SKEWS[number]), str(base)]
        command = [sys.executable, "-m", "tests.chaos.schedule_sweeper", *args]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    sweepers = [start(number) for number in range(SWEEPERS)]
    for sweeper in sweepers:
        read_line(sweeper)
    first = datetime.fromtimestamp(int(base + (time.time() - base) * speed) + max(SKEWS), UTC)
    schedule = Schedule(
        name="often", job_type="t", every=1.0, catch_up="all", overlap="allow", next_at=first, fields=submit_fields("t", params=None)
    )  # fmt: skip
    position = run_sync(store.feed(None)).position
    run_sync(store.kv_put(schedule.key, schedule.to_text()))
    created: Counter[str] = Counter()
    until = time.monotonic() + PATIENCE + 3 * ticks / speed
    try:
        while True:
            number = chance.randrange(SWEEPERS)
            end(sweepers[number])
            sweepers[number] = start(number)
            read_line(sweepers[number])
            found = run_sync(store.feed(position, timeout=0.1))
            position = found.position
            assert not found.lost
            events = [event for event in found.events if event.kind == "created"]
            created.update(event.job_id for event in events)
            gone = [
                Write(one.job_id, plan_delete(new_operation_id())) for one in chance.sample(events, len(events) // 3)
            ]
            run_sync(store.apply(gone))
            if len(created) >= ticks:
                break
            assert time.monotonic() < until, f"{len(created)} of {ticks} ticks"
    finally:
        for sweeper in sweepers:
            end(sweeper)
    while (found := run_sync(store.feed(position))).events:
        position = found.position
        created.update(event.job_id for event in found.events if event.kind == "created")
    item: Any = run_sync(store.kv_get(schedule.key))
    return created, Schedule.from_text(item.value)


def read_line(sweeper: subprocess.Popen[bytes]) -> None:
    """Wait until a sweeper says that it is ready."""
    assert sweeper.stdout is not None
    assert sweeper.stdout.readline() == b"ready\n"


def end(sweeper: subprocess.Popen[bytes]) -> None:
    """Kill a sweeper."""
    sweeper.kill()
    sweeper.wait()
    assert sweeper.stdout is not None
    sweeper.stdout.close()


def check(created: Counter[str], schedule: Schedule) -> None:
    """Assert that each tick from the first to the last made one job."""
    assert schedule.last_at is not None
    assert set(created.values()) == {1}, "a tick was fired twice"
    last = schedule.last_at
    wanted = {schedule.job_id(last - timedelta(seconds=back)) for back in range(schedule.fired)}
    assert set(created) == wanted, "a tick was missed"


# At most 100 missed ticks are caught up: with 8 a second, all sweepers may be away for twelve seconds at a time.
TICKS = [
    pytest.param(150, 8.0, id="150"),
    pytest.param(10_000, 30.0, id="10000", marks=[pytest.mark.nightly, pytest.mark.timeout(900)]),
]


@pytest.mark.parametrize(("ticks", "speed"), TICKS)
def test_sweepers_on_sqlite_fire_each_tick_once(sqlite_url: str, ticks: int, speed: float) -> None:
    store = open_store(sqlite_url)
    check(*fired_under_kills(store, sqlite_url, "milepost", ticks, speed))


@pytest.mark.service("redis-server")
@pytest.mark.parametrize(("ticks", "speed"), TICKS)
def test_sweepers_on_redis_fire_each_tick_once(redis_url: str, redis_namespace: str, ticks: int, speed: float) -> None:
    store = open_store(redis_url, namespace=redis_namespace)
    check(*fired_under_kills(store, redis_url, redis_namespace, ticks, speed))


@pytest.mark.service("postgresql")
@pytest.mark.parametrize(("ticks", "speed"), TICKS)
def test_sweepers_on_postgresql_fire_each_tick_once(postgres_server: PostgresServer, ticks: int, speed: float) -> None:
    url, namespace = postgres_server.url(), postgres_server.emptied("ticks")
    check(*fired_under_kills(open_store(url, namespace=namespace), url, namespace, ticks, speed))
