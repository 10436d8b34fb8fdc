"""What jobs have spent, by type, day and label, and by a job with its descendants, on every store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from milepost import AsyncJobManager, InvalidInputError, JobManager, JobNotFoundError, Jobs, Run
from milepost.core.ledger import DAYS_KEPT, today
from milepost.stores.factory import open_store
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import Store
from milepost.stores.retention import purge_older
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FrozenClock
from tests.chaos.calibration import slowness
from tests.waiting import PATIENCE, until


@pytest.fixture
def jobs(every_store: Store) -> Iterator[Jobs]:
    jobs = Jobs(every_store)
    jobs.worker()  # so that a store in memory starts no worker by itself
    yield jobs
    jobs.close()


def test_usage_of_descendants_counts_for_the_root(jobs: Jobs) -> None:
    @jobs.job("tree", max_attempts=2)
    def tree(run: Run, depth: int) -> None:
        if depth:
            for name in "ab":
                run.submit_child(name, tree, depth=depth - 1)
            run.join()
        run.add_usage(tokens=10**depth, usd=0.1)

    with jobs.run_workers(concurrency=4):
        root = jobs.wait(jobs.submit(tree.options(labels={"tenant": "acme"}), depth=2), PATIENCE)
        other = jobs.wait(jobs.submit(tree.options(labels={"tenant": "zoo"}), depth=0), PATIENCE)
    found = jobs.job_usage(root.job_id)
    assert found.own == root.usage == {"tokens": 100, "usd": 0.1}
    assert found.descendants == {"tokens": 2 * 10 + 4, "usd": 0.6}
    assert (found.total, found.budget, found.on_budget) == ({"tokens": 124, "usd": 0.7}, {}, None)
    child = next(job for job in jobs.list_jobs() if job.parent_id == root.job_id)
    assert jobs.job_usage(child.job_id).descendants == {}, "a ledger is kept for the root"
    groups = {"acme": {"tokens": 124, "usd": 0.7}, "zoo": {"tokens": 1, "usd": 0.1}}
    assert jobs.usage(by="label:tenant").groups == groups
    jobs.delete_job(child.job_id)
    assert jobs.job_usage(root.job_id) == found
    jobs.delete_job(root.job_id)
    jobs.delete_job(other.job_id)
    assert jobs.usage(by="label:tenant").groups == groups, "what was spent stays spent"
    with pytest.raises(JobNotFoundError):
        jobs.job_usage(root.job_id)


def test_later_job_of_a_deleted_id_begins_without_usage(jobs: Jobs) -> None:
    @jobs.job("spend")
    def spend(run: Run) -> None:
        run.add_usage(usd=3)

    @jobs.job("root")
    def root(run: Run) -> None:
        run.submit_child("a", spend)
        run.join()

    with jobs.run_workers():
        for number in range(3):
            job = jobs.wait(jobs.submit(root.options(job_id="nightly", budget={"usd": 4})), PATIENCE)
            assert (job.status, jobs.job_usage("nightly").total) == ("completed", {"usd": 3})
            if number == 1:
                run_sync(jobs.store.sweep(lease=60, interval=0))
            jobs.delete_job("nightly")


async def test_usage_is_filtered_and_grouped(every_store: Store) -> None:
    manager = AsyncJobManager(every_store.with_blocking(blocking=False))
    for job_type, tenant in (("a", "acme"), ("a", "zoo"), ("b", "acme"), ("b", None)):
        labels = {"tenant": tenant, "team": "x"} if tenant else None
        async with manager.track(job_type, labels=labels) as run:
            run.add_usage(tokens=1 if job_type == "a" else 10)
    day = today(await manager.store.now())
    report = await manager.usage()
    assert (report.since, report.until, report.by) == (day - timedelta(days=29), day, "type")
    assert (report.groups, report.total) == ({"a": {"tokens": 2}, "b": {"tokens": 20}}, {"tokens": 22})
    by_tenant = await manager.usage(by="label:tenant", since=day, until=day.isoformat())
    assert by_tenant.groups == {"": {"tokens": 10}, "acme": {"tokens": 11}, "zoo": {"tokens": 1}}
    of_acme = await manager.usage(by="day", job_type="a", labels={"tenant": "acme", "team": "x"})
    assert of_acme.groups == {day.isoformat(): {"tokens": 1}}
    assert (await manager.usage(labels={"tenant": "other"})).groups == {}
    assert (await manager.usage(until=day - timedelta(days=1))).groups == {}
    await manager.close()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"by": "user"}, "by: 'user' must be type, day or label:NAME"),
        ({"by": "label:"}, "by: 'label:' must be"),
        ({"since": "yesterday"}, "since: 'yesterday' must be a day, such as 2026-11-28"),
        ({"until": 7}, "until: 7 must be a day"),
        ({"since": date(2026, 2, 2), "until": date(2026, 2, 1)}, "since: 2026-02-02 is after 2026-02-01"),
    ],
)
def test_wrong_period_is_refused(options: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        JobManager("memory://").usage(**options)  # type: ignore[arg-type]


def test_old_days_are_forgotten_and_reported_as_incomplete() -> None:
    clock = FrozenClock()
    manager = JobManager(MemoryStore(clock=clock))
    with manager.track("spend") as run:
        run.add_usage(usd=1)
    first = today(run_sync(manager.store.now()))
    clock.advance((DAYS_KEPT - 1) * 86_400)
    run_sync(purge_older(manager.store, ttl=10**9))
    assert (report := manager.usage(since=first)).complete
    assert report.total == {"usd": 1}
    clock.advance(86_400)
    run_sync(purge_older(manager.store, ttl=10**9))
    report = manager.usage(since=first)
    assert (report.complete, report.since, report.groups) == (False, first, {})


WORKER = """
import os, time
from milepost import Jobs, Run
from milepost.stores.factory import open_store
from milepost.stores.memory.store import MemoryStore

jobs = Jobs(open_store(os.environ["STORE"], namespace=os.environ["NAMESPACE"]))

@jobs.job("call", max_attempts=3)
def call(run: Run, calls: int) -> None:
    for number in range(calls):
        with open(os.environ["CALLS"], "a") as made:
            made.write(f"{run.job_id} {run.attempt}\\n")
        run.add_usage(calls=1)
        time.sleep(0.01)

@jobs.job("parent", max_attempts=3)
def parent(run: Run, children: int, calls: int) -> None:
    for number in range(children):
        run.submit_child(str(number), call, calls=calls)
    run.join()

jobs.worker(concurrency=4).run()
"""
CHILDREN, CALLS, KILLS = 6, 60, 3


@pytest.mark.timing
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=pytest.mark.service("redis-server"))])
def test_sums_agree_with_records_when_workers_are_killed(
    kind: str, request: pytest.FixtureRequest, namespace: str, tmp_path: Path
) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    made = tmp_path / "calls"
    made.touch()
    environment = {
        **os.environ, "STORE": url, "NAMESPACE": namespace, "CALLS": str(made),
        "MILEPOST_LEASE": str(2 * slowness()), "MILEPOST_SWEEP": "0.2",
    }  # fmt: skip
    jobs = Jobs(open_store(url, namespace=namespace))
    root = jobs.enqueue("parent", {"children": CHILDREN, "calls": CALLS}, max_attempts=3)
    for kill in range(KILLS + 1):
        worker = subprocess.Popen([sys.executable, "-c", WORKER], env=environment)
        try:
            if kill < KILLS:
                before = len(made.read_text().splitlines())
                until(lambda before=before: len(made.read_text().splitlines()) > before + 40)  # type: ignore[misc]
            else:
                jobs.wait(root, PATIENCE)
        finally:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
    children = [job for job in jobs.list_jobs(limit=100) if job.parent_id == root.job_id]
    assert {job.status for job in children} == {"completed"}
    counted = sum(job.usage["calls"] for job in children)
    assert jobs.job_usage(root.job_id).descendants == {"calls": counted}
    assert jobs.usage().groups == {"call": {"calls": counted}}
    calls = Counter(made.read_text().splitlines())
    for job in children:
        assert CALLS <= job.usage["calls"] <= sum(calls[f"{job.job_id} {n}"] for n in range(1, job.attempt + 1))
    jobs.close()
