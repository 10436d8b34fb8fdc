"""Wake-ups between processes: received at once where the server can send them, else the poll finds what came."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import psycopg
import pytest

from milepost import Jobs, Run, Settings
from milepost.stores.postgres import PostgresStore, store
from milepost.stores.sync_bridge import run_sync
from tests.postgres_server import PostgresServer
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.service("postgresql")


@pytest.fixture
def pair(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Jobs, PostgresStore]]:
    """Yield the jobs of one process, and a store that stands for another one; neither ever finds anything by a poll."""
    monkeypatch.setattr(store, "POLL_INTERVAL", 1000)
    namespace = postgres_server.emptied("notified")
    other = PostgresStore(postgres_server.url(), namespace=namespace)
    jobs = Jobs(postgres_server.url(), options=Settings(namespace=namespace))

    @jobs.job("ship")
    def ship(run: Run) -> None: ...

    jobs.worker()
    run_sync(other.now())
    yield jobs, other
    jobs.close()
    run_sync(other.close())


def waiting(other: PostgresStore) -> tuple[threading.Thread, list[object]]:
    """Wait for work and for an event in threads, from before the return."""
    found: list[object] = []
    position = run_sync(other.feed(None)).position

    def wait() -> None:
        found.append(run_sync(other.wait_for_work("w", ["ship"], 100)))
        found.append(len(run_sync(other.feed(position, timeout=100)).events))

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: bool(other._namespace.waiters) and _listeners(other) == 1)
    return thread, found


def _listeners(other: PostgresStore) -> int:
    with psycopg.connect(**other._namespace.given) as db:
        found = db.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN milepost%' AND state = 'idle'"
        ).fetchone()
    assert found is not None
    return int(found[0])


def test_submit_of_another_process_wakes_those_who_wait(pair: tuple[Jobs, PostgresStore]) -> None:
    jobs, other = pair
    thread, found = waiting(other)
    jobs.submit("ship")
    thread.join(PATIENCE)
    assert found == [True, 1]


def test_commit_of_a_session_wakes_those_who_wait(pair: tuple[Jobs, PostgresStore], postgres_url: str) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    jobs, other = pair
    thread, found = waiting(other)
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    with Session(engine) as session, session.begin():
        jobs.using(session).submit("ship")
    thread.join(PATIENCE)
    assert found == [True, 1]
    engine.dispose()


def test_transaction_of_a_caller_sends_no_notification() -> None:
    """A transaction with a NOTIFY takes a lock of the whole server when it commits. PostgreSQL refuses to prepare such a one."""
    with PostgresServer(max_prepared_transactions=1) as server:
        jobs = Jobs(server.url())

        @jobs.job("ship")
        def ship(run: Run) -> None: ...

        with psycopg.connect(server.url(), autocommit=True) as db:
            db.execute("BEGIN")
            jobs.using(db).submit(ship)
            db.execute("PREPARE TRANSACTION 'order'")
            assert jobs.count_jobs() == 0
            db.execute("COMMIT PREPARED 'order'")
            assert jobs.count_jobs() == 1
            db.execute("BEGIN")
            db.execute("NOTIFY orders")
            with pytest.raises(psycopg.errors.FeatureNotSupported):
                db.execute("PREPARE TRANSACTION 'order'")
        jobs.close()


def test_lost_connection_is_replaced(
    pair: tuple[Jobs, PostgresStore], postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milepost.stores.postgres.notifications.RECONNECT_SECONDS", 0.1)
    jobs, other = pair
    thread, found = waiting(other)
    with psycopg.connect(postgres_url, autocommit=True) as db:
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN milepost%'")
        until(lambda: _listeners(other) == 1)
    jobs.submit("ship")
    thread.join(PATIENCE)
    assert found == [True, 1]


def test_forked_process_has_a_listener_of_its_own(pair: tuple[Jobs, PostgresStore]) -> None:
    jobs, other = pair
    thread, found = waiting(other)
    child = os.fork()
    if child == 0:
        try:
            jobs.submit("ship")
            jobs.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    thread.join(PATIENCE)
    assert found == [True, 1]
