"""Large numbers of jobs that are due, or expired, at once are processed in short steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Protocol

import pytest

from milepost.core import transitions as plans
from milepost.core.transitions.change import Change
from milepost.stores.factory import open_store
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.protocol import Claim, Store, Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import LONG, worker_job
from tests.redis_server import RedisServer

AT_ONCE = 250
LONG_STEP = 0.05
"""The target for one script, in seconds; on a busy machine only the mean can meet it."""


class Shared(Protocol):
    """A store that another connection can use at the same time."""

    store: Store

    def other(self) -> Store:
        """Return the same store with its own connections."""

    def mean(self) -> float | None:
        """Return the mean duration of a script since the last call, in seconds, or None."""


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
        """Transactions are not timed, but the calls of others that wait for them are."""


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.service("redis-server"))])
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    """Yield each kind of shared store; Redis runs in the test's own server."""
    if request.param == "sqlite":
        made: Shared = OnSQLite(request.getfixturevalue("sqlite_url"))
    else:
        made = OnRedis(request.getfixturevalue("start_redis")())
    yield made
    run_sync(made.store.close())


class Onlooker(threading.Thread):
    """A thread that reads and writes at the same time and records the durations."""

    def __init__(self, store: Store) -> None:
        super().__init__(daemon=True)
        self._store = store
        self._over = threading.Event()
        self.spent: list[float] = []

    def run(self) -> None:
        number = 0
        while not self._over.wait(0.01):
            began = time.perf_counter()
            [outcome] = run_sync(self._store.apply([create(f"onlooker-{number}", type="other")])).outcomes
            assert outcome.accepted
            assert run_sync(self._store.get(f"onlooker-{number}")) is not None
            self.spent.append(time.perf_counter() - began)
            number += 1

    def stop(self) -> list[float]:
        """Return the durations of its calls, sorted."""
        self._over.set()
        self.join(60)
        run_sync(self._store.close())
        assert self.spent, "it was answered not once"
        return sorted(self.spent)


def create(job_id: str, **fields: str) -> Write:
    return Write(job_id, plans.plan_create({**worker_job(), **fields}, new_operation_id()), answer=False)


def write(store: Store, writes: list[Write]) -> None:
    """Apply writes in batches; all must be accepted."""
    for first in range(0, len(writes), AT_ONCE):
        assert all(outcome.accepted for outcome in run_sync(store.apply(writes[first : first + AT_ONCE])).outcomes)


def start(worker: str) -> Change:
    return plans.plan_start(new_operation_id(), nonce=new_nonce(), lease=LONG, worker=worker)


@pytest.mark.timeout(300)
def test_10000_jobs_due_at_once_run_once_each(shared: Shared) -> None:
    many, store = 10_000, shared.store
    due = run_sync(store.now()) + 5_000_000
    write(store, [create(f"job-{number}", not_before=str(due)) for number in range(many)])
    onlooker = Onlooker(shared.other())
    onlooker.start()
    shared.mean()
    seen: list[str] = []
    ends: list[Write] = []
    while len(seen) < many:
        worker = f"w{len(seen) % 4}"
        claim = Claim(worker, {"q": None}, tuple(start(worker) for _ in range(50)), new_operation_id())
        applied = run_sync(store.apply(ends, claim))
        assert all(outcome.accepted for outcome in applied.outcomes)
        ours = [job for job in applied.claimed if job.job_type == "t"]
        assert all(int(job.record["started"]) >= due for job in ours)
        seen += [job.job_id for job in ours]
        ends = [
            Write(job.job_id, plans.plan_complete(new_operation_id(), job.record["token"], None, {}), answer=False)
            for job in applied.claimed
        ]
        if not applied.claimed and applied.next_due is not None:
            time.sleep(max(0.0, min(0.5, (applied.next_due - applied.now) / 1e6)))
    run_sync(store.apply(ends))
    mean = shared.mean()
    spent = onlooker.stop()
    assert len(set(seen)) == many
    assert run_sync(store.counts())["t", "completed"] == many
    assert mean is None or mean < LONG_STEP
    assert spent[len(spent) // 2] < 1.0, "half of the calls of others had to wait"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "many",
    [10_000, pytest.param(100_000, marks=pytest.mark.slow), pytest.param(1_000_000, marks=pytest.mark.nightly)],
)
def test_large_purge_runs_in_short_steps(shared: Shared, many: int) -> None:
    store = shared.store
    for first in range(0, many, 10_000):
        names = [f"job-{number}" for number in range(first, first + 10_000)]
        write(store, [create(name, labels="a=b") for name in names])
        write(store, [Write(name, plans.plan_cancel(new_operation_id()), answer=False) for name in names])
    assert run_sync(store.counts()) == {("t", "cancelled"): many}
    onlooker = Onlooker(shared.other())
    onlooker.start()
    shared.mean()
    gone, steps, before = 0, 0, run_sync(store.now())
    while gone < many:
        removed = run_sync(store.purge(before=before)).removed
        assert removed <= 500
        gone += removed
        steps += 1
    mean = shared.mean()
    spent = onlooker.stop()
    assert ("t", "cancelled") not in run_sync(store.counts())
    assert run_sync(store.get("job-0")) is None
    assert run_sync(store.get(f"job-{many - 1}")) is None
    assert mean is None or mean < LONG_STEP
    assert spent[len(spent) // 2] < 1.0, "half of the calls of others had to wait"
    if isinstance(shared, OnRedis):
        with shared.server.client() as client:
            left = {str(key) for key in client.scan_iter(count=1000) if "onlooker" not in str(key)}
            assert len(left) < 50, "everything that belonged to the records is removed, too"
