"""Retention of events, feed, WAL and tombstones; and the indexes that lists use."""

from __future__ import annotations

import itertools
import random
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Position, Select, Write
from milepost.stores.retention import purge_older
from milepost.stores.sqlite import SQLiteStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FrozenClock
from tests.stores.sqlite.conftest import Make
from tests.stores.sqlite.sqlite_fixture import check_file, claim, create, do
from tests.waiting import PATIENCE


@pytest.fixture
def short_feed(monkeypatch: Any) -> int:
    """Set the feed to 50 events, trimmed 10 at a time."""
    monkeypatch.setattr("milepost.stores.sqlite.maintenance.FEED_KEPT", 50)
    monkeypatch.setattr("milepost.stores.sqlite.store.FEED_KEPT", 50)
    monkeypatch.setattr("milepost.stores.sqlite.maintenance.TRIM_BATCH", 10)
    return 50


def count(path: Path, where: str = "1") -> int:
    """Return the number of rows of events."""
    with sqlite3.connect(path) as connection:
        found = connection.execute(f"SELECT count(*) FROM events WHERE {where}").fetchone()[0]
    connection.close()
    return int(found)


def report(job: Job, message: str) -> Write:
    return Write(job.job_id, plans.plan_report(new_operation_id(), job.record["token"], {"message": message}))


def test_feed_is_trimmed_but_lifecycle_events_stay(make: Make, path: Path, short_feed: int) -> None:
    store = make()
    do(store, create("a"))
    (job,) = claim(store)
    for number in range(200):
        do(store, report(job, str(number)))
    first = run_sync(store.feed("0"))
    assert (len(first.events), first.lost) == (50, False), "0 is the beginning of what is kept"
    assert run_sync(store.feed("1")).lost
    assert not run_sync(store.feed(str(202 - short_feed))).lost
    run_sync(store.sweep(lease=30, interval=0))
    assert count(path, "keep = 0") == 50
    assert [(event.version, event.kind) for event in run_sync(store.events("a"))] == [(1, "created"), (2, "running")]
    assert run_sync(store.feed("0")).events == first.events
    run_sync(store.sweep(lease=30, interval=0))
    assert count(path) == 52
    do(store, report(job, "one more"))
    assert run_sync(store.feed(str(202))).events[0].message == "one more", "positions are never used again"


def test_events_of_deleted_job_leave_with_feed(make: Make, path: Path, short_feed: int) -> None:
    store = make()
    do(store, create("a"), create("b"))
    do(store, Write("a", plans.plan_delete(new_operation_id())))
    assert run_sync(store.events("a")) == []
    assert [event.kind for event in run_sync(store.feed("0")).events] == ["created", "created", "deleted"]
    do(store, create("a"))
    assert [event.version for event in run_sync(store.events("a"))] == [1]
    (job, _) = claim(store, 2)
    for number in range(150):
        do(store, report(job, str(number)))
    run_sync(store.sweep(lease=30, interval=0))
    assert count(path, "id = 'a'") == 2
    do(store, Write("a", plans.plan_delete(new_operation_id())))
    assert count(path, "id = 'a' AND kind <> 'deleted'") == 0, "what had left the feed goes at once"


def test_event_list_keeps_newest_and_lifecycle(make: Make, monkeypatch: Any) -> None:
    monkeypatch.setattr("milepost.stores.sqlite.transaction.EVENTS_KEPT", 20)
    store = make()
    do(store, create("a"))
    (job,) = claim(store)
    for number in range(50):
        do(store, Write("a", plans.plan_log(new_operation_id(), job.record["token"], f'{{"lines":[{number}]}}')))
    kept = run_sync(store.events("a"))
    assert [event.version for event in kept] == [1, 2, *range(33, 53)]
    assert [event.version for event in run_sync(store.events("a", 40, 3))] == [41, 42, 43]
    assert len(run_sync(store.feed("0")).events) == 52, "the feed has them all"


def test_purge_removes_everything_of_record(make: Make, path: Path) -> None:
    clock = FrozenClock()
    store = make(clock=clock)
    do(store, *(create(f"j{number}", labels=f"n={number % 3}\x1fowner=ana") for number in range(250)))
    for job in claim(store, 240):
        do(store, Write(job.job_id, plans.plan_complete(new_operation_id(), job.record["token"], "1", {})))
    assert run_sync(purge_older(store, ttl=60)) == 0
    clock.advance(61)
    assert run_sync(store.purge(before=run_sync(store.now()) - 60_000_000, limit=150)) == (150, True)
    check_file(path)
    assert run_sync(purge_older(store, ttl=60)) == 90
    assert len(check_file(path)) == 10
    assert count(path, "keep > 0") == 10
    assert run_sync(store.count(Select(labels=(("owner", "ana"),)))) == 10
    clock.advance(3600)
    run_sync(purge_older(store, ttl=7200))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM claims").fetchone()[0] == 0
    connection.close()


def test_wal_size_is_bounded(make: Make, path: Path) -> None:
    store = make()
    for number in range(60):
        do(store, *(create(f"j{number}-{n}", metadata=f'"{"x" * 2000}"') for n in range(100)))
    assert path.stat().st_size > 12_000_000
    assert path.with_name(path.name + "-wal").stat().st_size < 8_000_000


def test_scheduled_job_wakes_waiting_worker(make: Make) -> None:
    store = make()
    due = run_sync(store.now()) + 3_000_000  # later than the claim below
    do(store, create("a", not_before=str(due)))
    assert claim(store) == []
    assert run_sync(store.wait_for_work("w", ["q"], PATIENCE))
    assert run_sync(store.now()) >= due
    assert [job.job_id for job in claim(store)] == ["a"]


def test_10000_jobs_due_at_once_are_claimed_in_batches(make: Make) -> None:
    clock = FrozenClock()
    store = make(clock=clock)
    due = str(clock() + 1_000_000)
    do(store, *(create(f"j{number:04}", not_before=due) for number in range(1200)))
    clock.advance(2)
    found = [job.job_id for _ in range(50) for job in claim(store, 32)]
    assert len(found) == len(set(found)) == 1200
    assert claim(store) == []


def test_full_queue_does_not_wake_worker(make: Make) -> None:
    """No worker spins on a queue that has jobs and no free slot."""
    store = make()
    do(store, create("a"), create("b"))
    run_sync(store.set_limit("q", 1, False))
    (job,) = claim(store, 2)
    assert not run_sync(store.wait_for_work("w", ["q"], 0.05))
    do(store, Write("a", plans.plan_complete(new_operation_id(), job.record["token"], None, {})))
    assert run_sync(store.wait_for_work("w", ["q"], PATIENCE))
    run_sync(store.set_limit("q", None, True))
    assert not run_sync(store.wait_for_work("w", ["q"], 0.05))


# --- lists ---

TYPES, STATUSES = ("t", "u", "v"), ("pending", "running", "completed", "failed", "cancelled")


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> tuple[SQLiteStore, list[Job]]:
    """300 jobs of several types, statuses and labels, some made in the same microsecond; and all of them, newest first."""
    chance, clock = random.Random(7), FrozenClock()
    store = SQLiteStore(tmp_path_factory.mktemp("crowd") / "jobs.db", synchronous="NORMAL", clock=clock)
    for number in range(300):
        if chance.random() < 0.7:
            clock.advance(0.001)
        job_id = f"j{chance.randrange(10**9):09}"
        labels = [f"owner=o{number % 7}"] * (number % 3 > 0) + [f"rare=r{number % 97}"] * (number % 2)
        do(store, create(job_id, type=chance.choice(TYPES), labels="\x1f".join(labels)))
        end = chance.randrange(5)
        if end == 0:
            do(store, Write(job_id, plans.plan_cancel(new_operation_id())))
        elif end > 1 and (jobs := claim(store)):
            token = jobs[0].record["token"]
            if end == 2:
                do(store, Write(jobs[0].job_id, plans.plan_complete(new_operation_id(), token, "1", {})))
            elif end == 3:
                report = {"stalled": "slow"}
                do(store, Write(jobs[0].job_id, plans.plan_report(new_operation_id(), token, report, "stalled")))
    jobs = run_sync(store.select(Select(), 1000))
    assert len(jobs) == 300
    keys = [(int(job.record["created"]), job.job_id) for job in jobs]
    assert keys == sorted(keys, reverse=True)
    return store, jobs


SELECTIONS = [
    Select(types=types, statuses=statuses, labels=labels, stalled=stalled)
    for types, statuses, labels, stalled in itertools.product(
        [(), ("t",), ("t", "v", "none")],
        [(), ("pending",), ("completed", "cancelled", "running")],
        [(), (("owner", "o3"),), (("rare", "r5"),), (("owner", "o3"), ("rare", "r5")), (("owner", "unknown"),)],
        [False, True],
    )
]


def test_selection_pages_contain_all_matches(
    crowd: tuple[SQLiteStore, list[Job]],
) -> None:
    store, jobs = crowd
    for select in SELECTIONS:
        wanted = [
            job.job_id
            for job in jobs
            if (not select.types or job.job_type in select.types)
            and (not select.statuses or job.status.value in select.statuses)
            and all(job.labels.get(key) == value for key, value in select.labels)
            and (not select.stalled or job.stalled)
        ]
        assert [job.job_id for job in run_sync(store.select(select, 1000))] == wanted, select
        walked: list[str] = []
        after = None
        while page := run_sync(store.select(select, 7, after)):
            walked += [job.job_id for job in page]
            after = Position(int(page[-1].record["created"]), page[-1].job_id)
        assert walked == wanted, select
        number = run_sync(store.count(select))
        assert number is None or number == len(wanted), select


def test_selection_respects_time_bounds(crowd: tuple[SQLiteStore, list[Job]]) -> None:
    store, jobs = crowd
    times = sorted({int(job.record["created"]) for job in jobs})
    low, high = times[20], times[-20]
    for select in (
        Select(created_after=low, created_before=high),
        Select(types=("t",), created_after=low, created_before=high),
        Select(labels=(("owner", "o3"),), created_after=low, created_before=high),
    ):
        wanted = [
            job.job_id
            for job in jobs
            if low <= int(job.record["created"]) < high
            and (not select.types or job.job_type == "t")
            and all(job.labels.get(key) == value for key, value in select.labels)
        ]
        assert wanted
        assert [job.job_id for job in run_sync(store.select(select, 1000))] == wanted


def test_statements_use_indexes(make: Make) -> None:
    store = make()
    run_sync(store.now())
    connection, sql = store._database._reader._connection, store._file.sql
    assert connection is not None
    names = ["created", "id", "since", "types", "statuses", "stalled", "labels", "limit", "type", "status", "pair"]
    values: dict[str, Any] = dict.fromkeys(
        [*names, "queue", "rank", "now", "most", "after", "others_from", "waits", "own", "bound", "least", "ahead", "first", "end", "ring", "turn",
         "name"], 1
    )  # fmt: skip
    for name in ("select_created", "select_listed", "select_labelled", "select_stalled", "oldest", "claim_next", "events",
                 "record_get", "key_owner", "claim_promote", "claim_next_due", "rings", "first_subqueues", "subqueue_put",
                 "turn_take", "sweep_lease", "sweep_deadline", "sweep_stale", "purge_ended", "feed", "feed_trim", "event_list_bound", "event_delete_all"):  # fmt: skip
        text = sql[name]
        given: Any = values if re.search(r":\w", text) else (1,) * text.count("?")
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", given)]
        sorts = [step for step in plan if "TEMP B-TREE FOR ORDER" in step]
        scans = [
            step for step in plan if step.startswith("SCAN") and "USING" not in step and "VIRTUAL TABLE" not in step
        ]
        assert not sorts, (name, plan)
        assert not [step for step in scans if "subquery" not in step and step != "SCAN rings"], (name, plan)
