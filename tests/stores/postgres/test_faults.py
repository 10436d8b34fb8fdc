"""A PostgreSQL store while the server restarts, while others hold locks and long transactions, and across a fork."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from milepost import AsyncJobs, JobManager, Jobs, Run, Settings
from milepost.core import transitions as plans
from milepost.core.defaults import JOB_TTL
from milepost.core.errors import LeaseHeldError, StoreUnavailableError
from milepost.run.sweeper import Sweeper
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.postgres import PostgresStore, claims, maintenance
from milepost.stores.postgres.connection import Rows, parameters
from milepost.stores.postgres.database import Part, Transaction
from milepost.stores.protocol import Claim, Write
from milepost.stores.retention import purge_older
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.groups import dying
from tests.postgres_server import PostgresServer, on_each_postgres
from tests.waiting import until

pytestmark = on_each_postgres
FIELDS = {"type": "t", "run_by": "worker", "ready": "q", "slot": "q", "max_attempts": "1", "budget": "1"}
LEASE = 30_000_000


@pytest.fixture
def store(postgres_server: PostgresServer) -> Iterator[PostgresStore]:
    """Yield an empty store that waits 0.2 s for a lock."""
    with_locks = PostgresStore(postgres_server.url(), namespace=postgres_server.emptied("faults"), patience=0.2)
    yield with_locks
    run_sync(with_locks.close())


def create(store: PostgresStore, *names: str) -> None:
    """Create jobs."""
    for name in names:
        write = Write(name, plans.plan_create(FIELDS, new_operation_id()))
        assert run_sync(store.apply([write])).outcomes[0].accepted


def claim(store: PostgresStore, most: int = 1) -> dict[str, str]:
    """Claim jobs and return their ids with their tokens."""
    starts = tuple(
        plans.plan_start(new_operation_id(), nonce=new_nonce(), lease=LEASE, worker="w") for _ in range(most)
    )
    jobs = run_sync(store.apply([], Claim("w", {"q": None}, starts, new_operation_id()))).claimed
    return {job.job_id: job.record["token"] for job in jobs}


def test_locked_job_is_a_conflict_and_others_are_not(store: PostgresStore, postgres_url: str) -> None:
    create(store, "a", "b")
    tokens = claim(store, 2)
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT 1 FROM faults.jobs WHERE id = 'a' FOR UPDATE")
        with pytest.raises(LeaseHeldError, match=r"locked by another transaction for more than 0\.2 s"):
            run_sync(store.apply([Write("a", plans.plan_cancel(new_operation_id()))]))
        assert run_sync(store.apply([Write("b", plans.plan_cancel(new_operation_id()))])).outcomes[0].accepted
        assert run_sync(store.renew(list(tokens.items()), LEASE)) == ["live", "stopping"]
    assert run_sync(store.apply([Write("a", plans.plan_cancel(new_operation_id()))])).outcomes[0].accepted


def test_lease_under_open_transaction_is_neither_due_nor_lost(store: PostgresStore, postgres_url: str) -> None:
    create(store, "a", "b")
    tokens = list(claim(store, 2).items())
    run_sync(store.renew(tokens, -1))
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT 1 FROM faults.leases WHERE id = 'a' FOR KEY SHARE")
        due = run_sync(store.sweep(lease=30, interval=0)).due
        assert [(item.kind, item.job_id) for item in due] == [("lease", "b")]
        assert run_sync(store.renew(tokens, LEASE)) == ["live", "live"]
    assert run_sync(store.sweep(lease=30, interval=0)).due == []


def test_sweep_does_not_wait_for_another_one(store: PostgresStore, postgres_url: str) -> None:
    """A sweep that waited for a frozen or slow one failed, with a traceback in the log of the worker."""
    create(store, "a")
    run_sync(store.renew(list(claim(store).items()), -1))
    with psycopg.connect(postgres_url) as other:
        other.execute(store._namespace.sql["sweep_alone"])
        assert run_sync(store.sweep(lease=30, interval=0)).skipped
        assert run_sync(purge_older(store, ttl=0)) == 0
    assert [item.job_id for item in run_sync(store.sweep(lease=30, interval=0)).due] == ["a"]


def test_sweep_changes_the_jobs_beside_a_locked_one(store: PostgresStore, postgres_url: str) -> None:
    """Regression: while a transaction had locked one due record, every sweep failed and no lost run was recovered."""
    create(store, "a", "b")
    run_sync(store.renew(list(claim(store, 2).items()), -1))
    sweeper = Sweeper(store, Settings(sweep=0.1), JOB_TTL)
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT 1 FROM faults.jobs WHERE id = 'a' FOR SHARE")
        assert run_sync(sweeper.sweep()) == 1
        assert statuses(store) == ["running", "pending"]
    assert run_sync(sweeper.sweep()) == 1
    assert statuses(store) == ["pending", "pending"]


def test_schedules_fire_beside_a_locked_unique_key(store: PostgresStore, postgres_url: str) -> None:
    """Regression: a transaction that held the unique key of one schedule stopped all, and made list_jobs() fail."""
    jobs = Jobs(store, options=Settings(sweep=0.1))

    @jobs.job("t")
    def t(run: Run) -> None: ...

    with psycopg.connect(postgres_url) as other:
        for name, key in (("a", None), ("b", "held"), ("c", None)):
            made = jobs.add_schedule(name, t.options(unique_key=key), every="1d")
            assert made.next_at is not None
            due = replace(made, next_at=made.next_at - timedelta(days=1))
            run_sync(store.kv_put(f"schedule/{name}", due.to_text()))
        jobs.using(other).submit(t.options(unique_key="held"))
        until(lambda: schedules_of(jobs) == ["a", "c"])  # one tick fires the first, and the others if it has time
        other.rollback()
    run_sync(Sweeper(store, Settings(), JOB_TTL).sweep())
    assert schedules_of(jobs) == ["a", "b", "c"]
    jobs.close()


def schedules_of(jobs: Jobs) -> list[str]:
    """Return the names of the schedules that have made a job."""
    return sorted(job.job_id.partition(":")[0] for job in jobs.list_jobs())


def statuses(store: PostgresStore) -> list[str]:
    """Return the statuses of the jobs a and b."""
    return [job.status.value for name in "ab" if (job := run_sync(store.get(name)))]


def test_job_that_another_transaction_has_locked_is_left_to_it(store: PostgresStore, postgres_url: str) -> None:
    create(store, "a", "b")
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT 1 FROM faults.jobs WHERE id = 'a' FOR UPDATE")
        assert list(claim(store, 2)) == ["b"]
    assert list(claim(store, 2)) == ["a"]


def test_claim_locks_few_children_of_an_ended_parent(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: one claim locked all of thousands of children of a cancelled parent, which were cancelled only after it."""
    create(store, "parent")
    run = ("parent", claim(store)["parent"])
    for name in map(str, range(12)):
        child = {**FIELDS, "child_key": name, "labels": ":parent_id=parent"}
        run_sync(store.apply([Write(name, plans.plan_create(child, new_operation_id(), run=run))]))
    with dying(store):
        run_sync(store.apply([Write("parent", plans.plan_cancel(new_operation_id()))]))
    asked: list[str] = []
    ask = Transaction.run

    async def counted(tx: Transaction, *parts: Part) -> list[Rows]:
        asked.extend(name for name, _ in parts)
        return await ask(tx, *parts)

    monkeypatch.setattr(Transaction, "run", counted)
    monkeypatch.setattr(claims, "CLAIM_ROUNDS", 2)
    assert claim(store) == {}
    assert asked.count("claim_next") == 1 + 2
    run_sync(store.sweep(lease=30, interval=0))
    asked.clear()
    assert claim(store) == {}
    assert asked.count("claim_next") == 1


def test_feed_neither_waits_for_an_open_transaction_nor_loses_its_events(
    store: PostgresStore, postgres_url: str
) -> None:
    start = run_sync(store.feed(None)).position
    with psycopg.connect(postgres_url) as other:
        other.execute("INSERT INTO faults.events (id, version, kind, at, keep, body) VALUES ('slow', 1, 'x', 1, 0, '')")
        create(store, "a", "b", "c")
        first = run_sync(store.feed(start, limit=2))
        rest = run_sync(store.feed(first.position, limit=2))
        assert [event.job_id for event in (*first.events, *rest.events)] == ["a", "b", "c"]
        assert run_sync(store.feed(rest.position)).events == [], "no event comes twice"
    late = run_sync(store.feed(rest.position))
    assert [event.job_id for event in late.events] == ["slow"]
    assert run_sync(store.feed(late.position)).events == []


def test_feed_is_trimmed_and_an_event_that_came_late_is_purged(
    store: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep reads no dead rows of the feed: with those of a long transaction, it fell behind the events of busy workers."""
    assert run_sync(store.feed(None)).events == []
    monkeypatch.setattr(maintenance, "FEED_KEPT", 2)
    monkeypatch.setattr(maintenance, "TRIM_BATCH", 2)
    add = "INSERT INTO faults.events (id, version, kind, at, keep, body) VALUES (%s, 1, 'x', 9e15, 0, '')"
    with psycopg.connect(postgres_url) as other, psycopg.connect(postgres_url, autocommit=True) as db:
        kept = "SELECT id FROM faults.events ORDER BY seq"
        other.execute(add, ("late",))
        for name in "abcdef":
            db.execute(add, (name,))
        run_sync(store.sweep(lease=30, interval=0))
        assert db.execute(kept).fetchall() == [("e",), ("f",)]
        other.commit()
        db.execute(add, ("g",))
        run_sync(store.sweep(lease=30, interval=0))
        assert db.execute(kept).fetchall() == [("late",), ("f",), ("g",)]
        db.execute(add, ("h",))
        run_sync(purge_older(store, ttl=60))
        assert db.execute(kept).fetchall() == [("g",), ("h",)]


def test_restored_feed_is_not_lost_at_every_read(
    store: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump that is restored into a new server has numbers of transactions that this server has yet to reach. From the first
    trim on, each reader learned at each read that it had lost events, and read all records again.
    """
    start = run_sync(store.feed(None)).position
    monkeypatch.setattr(maintenance, "FEED_KEPT", 1)
    add = "INSERT INTO faults.events (id, version, kind, at, keep, body, xid) VALUES (%s, 1, 'x', 9e15, 0, '', '1000000000')"
    with psycopg.connect(postgres_url, autocommit=True) as db:
        db.execute("UPDATE faults.state SET value = 999999999 WHERE name = 'trimmed_xid'")
        db.execute(add, ("old",))
        create(store, "a")
        found = run_sync(store.feed(start))
        assert ([event.job_id for event in found.events], found.lost) == (["a"], False)
        db.execute(add, ("older",))
        create(store, "b", "c")
        run_sync(store.sweep(lease=30, interval=0))
        found = run_sync(store.feed(found.position))
        assert found.lost, "what this server has written and trimmed is still missed"
        found = run_sync(store.feed(found.position))
        assert (found.events, found.lost) == ([], False)


def test_change_of_a_job_that_is_just_being_created_locks_it(
    store: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a record that came between the lock and the read was changed without a lock, and a cancel that had been
    acknowledged in the meantime was lost: the job went back to running.
    """
    jobs = JobManager(store)
    other = JobManager(PostgresStore(postgres_url, namespace="faults", patience=0.2))
    run, commit = Transaction.run, Transaction.commit
    steps, slow = ["create", "cancel"], list[Transaction]()

    async def run_slowly(tx: Transaction, *parts: Part) -> list[Rows]:
        names = [name for name, _ in parts]
        if steps[:1] != ["create"] or "lock_jobs" not in names:
            return await run(tx, *parts)
        locked = names.index("lock_jobs") + 1
        first = await run(tx, *parts[:locked])
        slow.append(tx)
        del steps[0]
        other.create_job("a")
        return first + await run(tx, *parts[locked:])

    async def commit_slowly(tx: Transaction, *parts: Part, after: Sequence[Part] = ()) -> list[Rows]:
        if tx in slow and steps:
            del steps[0]
            with pytest.raises(LeaseHeldError):
                other.cancel_job("a")
        return await commit(tx, *parts, after=after)

    monkeypatch.setattr(Transaction, "run", run_slowly)
    monkeypatch.setattr(Transaction, "commit", commit_slowly)
    jobs.update_job("a", status="running")
    assert steps == []
    other.cancel_job("a")
    assert [event.kind for event in jobs.events("a")] == ["created", "running", "cancelled"]
    other.close()


def test_deadlock_is_repeated(store: PostgresStore, postgres_url: str) -> None:
    create(store, "a", "b")
    patient = PostgresStore(postgres_url, namespace="faults", patience=20)
    with psycopg.connect(postgres_url) as other:
        other.execute("SET deadlock_timeout = '60s'")
        other.execute("SELECT 1 FROM faults.jobs WHERE id = 'b' FOR UPDATE")
        writes = [Write(name, plans.plan_cancel(new_operation_id())) for name in "ab"]
        outcomes = []
        thread = threading.Thread(target=lambda: outcomes.extend(run_sync(patient.apply(writes)).outcomes))
        thread.start()
        other.execute("SET lock_timeout = '20s'")
        until(lambda: other.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone())
        other.execute("SELECT 1 FROM faults.jobs WHERE id = 'a' FOR UPDATE")
    thread.join()
    assert [outcome.accepted for outcome in outcomes] == [True, True]
    run_sync(patient.close())


def test_lost_connections_are_replaced_without_noise(
    store: PostgresStore, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """psycopg logged "error ignored terminating Pipeline" when a connection was lost between two statements."""
    create(store, "a")
    with psycopg.connect(postgres_url, autocommit=True) as other:
        end = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'milepost'"
        assert (True,) in other.execute(end).fetchall()
    create(store, "b")
    assert sorted(claim(store, 5)) == ["a", "b"]
    assert caplog.records == []


def test_restart_of_the_server_is_survived(postgres_service: str) -> None:
    with PostgresServer(service=postgres_service, fsync=True) as server:
        store = PostgresStore(server.url(), connect_budget=60)
        create(store, "a")
        server.stop("immediate")
        restart = threading.Timer(0.5, server.start)
        restart.start()
        create(store, "b")
        restart.join()
        assert sorted(claim(store, 5)) == ["a", "b"]
        server.stop("fast")
        with pytest.raises(StoreUnavailableError) as e:
            run_sync(PostgresStore(server.url(), connect_budget=0).now())
        assert e.value.temporary
        run_sync(store.close())
        server.start()


def test_forked_child_uses_connections_of_its_own(store: PostgresStore) -> None:
    create(store, "a")
    child = os.fork()
    if child == 0:
        try:
            create(store, "b")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    create(store, "c")
    assert sorted(claim(store, 5)) == ["a", "b", "c"]


async def test_close_leaves_no_session(postgres_server: PostgresServer, postgres_url: str) -> None:
    """Regression: the heartbeat opened a connection after the close, one for each Jobs."""
    options = Settings(namespace=postgres_server.emptied("faults"))
    url = postgres_url + "?application_name=closing"

    def use() -> None:
        jobs = Jobs(url, options=options)

        @jobs.job("count")
        def count(run: Run) -> None: ...

        with jobs.run_workers():
            pass
        jobs.close()

    await asyncio.to_thread(use)
    asynchronous = AsyncJobs(url, options=options)
    async with asynchronous.track("block"):
        pass
    await asynchronous.close()
    with psycopg.connect(postgres_url, autocommit=True) as other:
        open_sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'closing'"
        until(lambda: other.execute(open_sessions).fetchone() == (0,))


def test_variables_of_libpq_hold_before_defaults(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: PGCONNECT_TIMEOUT and PGAPPNAME were ignored."""
    monkeypatch.delenv("PGCONNECT_TIMEOUT")
    assert parameters(postgres_url)["connect_timeout"] == 5
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "17")
    monkeypatch.setenv("PGAPPNAME", "of an operator")
    with psycopg.connect(postgres_url, **parameters(postgres_url)) as used:
        shown = used.info.get_parameters()
    assert (shown["connect_timeout"], shown["application_name"]) == ("17", "of an operator")
    assert parameters(postgres_url + "?application_name=of+the+URL")["application_name"] == "of+the+URL"
