"""Very many at once: jobs that come due together, and records whose time is over, are dealt with in short steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Protocol

import pytest

from milepost.core import lifecycle as plans
from milepost.core.change import Change
from milepost.stores.driving import drive
from milepost.stores.ids import new_nonce, new_op
from milepost.stores.opening import open_store
from milepost.stores.protocol import Claim, Store, Write
from milepost.testing.conformance.harness import LONG, worker_job
from tests.services import RedisServer

AT_ONCE = 250
LONG_STEP = 0.05
"""Seconds: the aim for one script. On a busy machine only the mean can be held to it."""


class Shared(Protocol):
    """A store that another connection can look at meanwhile."""

    store: Store

    def other(self) -> Store:
        """The same store, by connections of its own."""

    def mean(self) -> float | None:
        """The mean time of a script since the last call, in seconds; None where there are none."""


class OnRedis:
    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.store = self.other()

    def other(self) -> Store:
        return open_store(self.server.url, namespace="many", blocking=True)

    def mean(self) -> float:
        with self.server.client() as client:
            stats = client.info("commandstats").get("cmdstat_evalsha", {"usec": 0, "calls": 1})
            client.config_resetstat()
            return float(stats["usec"] / stats["calls"] / 1e6)


class OnSQLite:
    def __init__(self, url: str) -> None:
        self.url = url
        self.store = self.other()

    def other(self) -> Store:
        return open_store(self.url, namespace="many", blocking=True)

    def mean(self) -> None:
        """A transaction is not timed: others wait for it, and their calls are."""


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.service("redis-server"))])
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    """A store of each kind that processes share; the Redis is the test's own."""
    if request.param == "sqlite":
        made: Shared = OnSQLite(request.getfixturevalue("sqlite_url"))
    else:
        made = OnRedis(request.getfixturevalue("start_redis")())
    yield made
    drive(made.store.close())


class Onlooker(threading.Thread):
    """Somebody else, who reads and writes meanwhile and keeps how long that took."""

    def __init__(self, store: Store) -> None:
        super().__init__(daemon=True)
        self._store = store
        self._over = threading.Event()
        self.spent: list[float] = []

    def run(self) -> None:
        number = 0
        while not self._over.wait(0.01):
            began = time.perf_counter()
            [outcome] = drive(self._store.apply([create(f"onlooker-{number}", type="other")])).outcomes
            assert outcome.accepted
            assert drive(self._store.get(f"onlooker-{number}")) is not None
            self.spent.append(time.perf_counter() - began)
            number += 1

    def stop(self) -> list[float]:
        """How long its calls took, in order of length."""
        self._over.set()
        self.join(60)
        drive(self._store.close())
        assert self.spent, "it was answered not once"
        return sorted(self.spent)


def create(job_id: str, **fields: str) -> Write:
    return Write(job_id, plans.plan_create({**worker_job(), **fields}, new_op()), answer=False)


def write(store: Store, writes: list[Write]) -> None:
    """Write, in batches; all must be accepted."""
    for first in range(0, len(writes), AT_ONCE):
        assert all(outcome.accepted for outcome in drive(store.apply(writes[first : first + AT_ONCE])).outcomes)


def start(worker: str) -> Change:
    return plans.plan_start(new_op(), nonce=new_nonce(), lease=LONG, worker=worker)


@pytest.mark.timeout(300)
def test_ten_thousand_jobs_that_come_due_at_once_are_each_run_once(shared: Shared) -> None:
    many, store = 10_000, shared.store
    due = drive(store.now()) + 5_000_000
    write(store, [create(f"job-{number}", not_before=str(due)) for number in range(many)])
    onlooker = Onlooker(shared.other())
    onlooker.start()
    shared.mean()
    seen: list[str] = []
    ends: list[Write] = []
    while len(seen) < many:
        worker = f"w{len(seen) % 4}"
        claim = Claim(worker, {"q": None}, tuple(start(worker) for _ in range(50)), new_op())
        applied = drive(store.apply(ends, claim))
        assert all(outcome.accepted for outcome in applied.outcomes)
        ours = [job for job in applied.claimed if job.job_type == "t"]
        assert all(int(job.record["started"]) >= due for job in ours)
        seen += [job.job_id for job in ours]
        ends = [
            Write(job.job_id, plans.plan_complete(new_op(), job.record["token"], None, {}), answer=False)
            for job in applied.claimed
        ]
        if not applied.claimed and applied.next_due is not None:
            time.sleep(max(0.0, min(0.5, (applied.next_due - applied.now) / 1e6)))
    drive(store.apply(ends))
    mean = shared.mean()
    spent = onlooker.stop()
    assert len(set(seen)) == many
    assert drive(store.counts())["t", "completed"] == many
    assert mean is None or mean < LONG_STEP
    assert spent[len(spent) // 2] < 1.0, "half of the calls of others had to wait"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("many", [10_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_very_many_expired_records_go_in_short_steps(shared: Shared, many: int) -> None:
    store = shared.store
    for first in range(0, many, 10_000):
        names = [f"job-{number}" for number in range(first, first + 10_000)]
        write(store, [create(name, labels="a=b") for name in names])
        write(store, [Write(name, plans.plan_cancel(new_op()), answer=False) for name in names])
    assert drive(store.counts()) == {("t", "cancelled"): many}
    onlooker = Onlooker(shared.other())
    onlooker.start()
    shared.mean()
    gone, steps = 0, 0
    while gone < many:
        removed = drive(store.purge(ttl=0))
        assert removed <= 500
        gone += removed
        steps += 1
    mean = shared.mean()
    spent = onlooker.stop()
    assert ("t", "cancelled") not in drive(store.counts())
    assert drive(store.get("job-0")) is None
    assert drive(store.get(f"job-{many - 1}")) is None
    assert mean is None or mean < LONG_STEP
    assert spent[len(spent) // 2] < 1.0, "half of the calls of others had to wait"
    if isinstance(shared, OnRedis):
        with shared.server.client() as client:
            left = {str(key) for key in client.scan_iter(count=1000) if "onlooker" not in str(key)}
            assert len(left) < 50, "what belonged to the records is gone too"
