"""The clock of a PostgreSQL server that several processes read."""

from __future__ import annotations

import psycopg

from milepost.stores.postgres import PostgresStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import StoreFixture, worker_job
from tests.conformance.moved_postgres_clock import ServerClock, clocked_store
from tests.postgres_server import PostgresServer


def test_run_of_another_process_starts_no_earlier_than_its_job_was_created(postgres_server: PostgresServer) -> None:
    """Regression: a machine that set its clock back by 4 ms showed a job that had started before it was created."""
    clock = ServerClock(postgres_server, "clock_set_back")
    one = clocked_store(clock, blocking=True)
    other = PostgresStore(clock.url, namespace=clock.schema, blocking=True)
    fixture = StoreFixture(one, clock)
    try:
        clock.advance(5)
        run_sync(fixture.create("a", worker_job()))
        clock.advance(-5)
        fixture.store = other
        job = run_sync(fixture.start("a"))
        assert job.started_at is not None
        assert job.started_at >= job.created_at
    finally:
        run_sync(one.close())
        run_sync(other.close())


def test_gate_that_opens_during_a_claim_is_not_missed(postgres_server: PostgresServer) -> None:
    """Regression: the claim found it closed, then open, and returned neither a job nor when to claim again."""
    clock = ServerClock(postgres_server, "ticking_clock")
    store = clocked_store(clock, blocking=True)
    fixture = StoreFixture(store, clock)
    try:
        run_sync(fixture.create("a", worker_job("t")))
        with psycopg.connect(clock.url, autocommit=True) as db:
            db.execute(f"CREATE SEQUENCE {clock.schema}.ticks START {clock()}")
            db.execute(
                f"CREATE OR REPLACE FUNCTION {clock.schema}.clock() RETURNS bigint LANGUAGE sql VOLATILE AS "
                f"$$ SELECT nextval('{clock.schema}.ticks') $$"
            )
        for looks in range(100, -1, -1):
            run_sync(store.close_gate("t", looks))
            answer = run_sync(fixture.claiming(["t"]))
            if answer.claimed:
                break
            assert answer.next_due is not None, f"the gate opened {looks} looks at the clock later"
        assert [job.job_id for job in answer.claimed] == ["a"]
    finally:
        run_sync(store.close())
