"""Submits in a transaction of the caller: on psycopg, SQLAlchemy and Django, with kills before and after the commit."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from milepost import AsyncJobs, Jobs, Run, Settings
from milepost.core.errors import DuplicateJobError, InvalidInputError, LeaseHeldError
from milepost.stores.postgres.notifications import Notifications
from tests.postgres_server import PostgresServer
from tests.stores.postgres.orders import empty_orders

pytestmark = pytest.mark.service("postgresql")


@pytest.fixture
def jobs(postgres_server: PostgresServer, postgres_url: str) -> Iterator[Jobs]:
    """Yield jobs with a published type "ship", and an empty table of orders."""
    jobs = Jobs(postgres_server.url(), options=Settings(namespace=postgres_server.emptied("using")))

    @jobs.job("ship")
    def ship(run: Run, order: int) -> int:
        return order

    empty_orders(postgres_url)
    with jobs.run_workers():  # publishes the type, for programs without the handler
        pass
    yield jobs
    jobs.close()


@pytest.fixture
def db(postgres_url: str) -> Iterator[psycopg.Connection]:
    """Yield a connection of the application."""
    with psycopg.connect(postgres_url) as connection:
        yield connection


def exists(jobs: Jobs, db: psycopg.Connection, number: int) -> tuple[bool, bool]:
    """Return whether an order exists, and whether its job does."""
    db.rollback()
    row = db.execute("SELECT 1 FROM orders WHERE number = %s", (number,)).fetchone()
    return row is not None, jobs.get_job(f"order-{number}") is not None


def order(jobs: Jobs, db: psycopg.Connection, number: int) -> None:
    """Insert an order and submit its job."""
    db.execute("INSERT INTO orders VALUES (%s)", (number,))
    job = jobs.using(db).submit("ship", {"order": number}, job_id=f"order-{number}")
    assert job.status == "pending"


def test_job_exists_if_the_transaction_commits(jobs: Jobs, db: psycopg.Connection) -> None:
    order(jobs, db, 1)
    assert jobs.get_job("order-1") is None
    db.rollback()
    assert exists(jobs, db, 1) == (False, False)
    assert jobs.count_jobs() == 0
    assert jobs.list_jobs() == []
    order(jobs, db, 1)
    db.commit()
    assert exists(jobs, db, 1) == (True, True)
    with jobs.run_workers():
        assert jobs.wait("order-1", timeout=60).result == 1


@pytest.mark.parametrize("end", ["commit", "kill"])
def test_killed_program_leaves_both_or_neither(jobs: Jobs, db: psycopg.Connection, postgres_url: str, end: str) -> None:
    words = [sys.executable, "-m", "tests.stores.postgres.transaction_child", postgres_url, "using", "5", end]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGKILL)
    committed = end == "commit"
    assert exists(jobs, db, 5) == (committed, committed)


def test_other_submits_do_not_wait_except_of_the_same_key(
    jobs: Jobs, db: psycopg.Connection, postgres_url: str
) -> None:
    db.execute("SET lock_timeout = '7s'")
    first = jobs.using(db).submit("ship", {"order": 1}, unique_key="k")
    assert db.execute("SHOW lock_timeout").fetchone() == ("7s",), "the caller's own setting is restored"
    with psycopg.connect(postgres_url) as other:
        jobs.using(other).submit("ship", {"order": 2}, unique_key="another")
        with pytest.raises(LeaseHeldError, match="locked by another transaction"):
            jobs.using(other).submit("ship", {"order": 3}, unique_key="k")
        assert other.execute("SHOW lock_timeout").fetchone() == ("0",), "the transaction can continue"
        other.rollback()
    jobs.submit("ship", {"order": 4})
    db.commit()
    with pytest.raises(DuplicateJobError):
        jobs.using(db).submit("ship", {"order": 3}, unique_key="k", on_duplicate="refuse")
    assert jobs.using(db).submit("ship", {"order": 3}, unique_key="k").job_id == first.job_id
    db.commit()
    assert jobs.count_jobs() == 2


def test_submit_of_an_id_in_an_open_transaction_waits_no_longer_than_for_a_key(
    jobs: Jobs, db: psycopg.Connection, postgres_url: str
) -> None:
    """Regression: it waited until that transaction ended, and then its own had failed."""
    jobs.using(db).submit("ship", {"order": 1}, job_id="order-1")
    with psycopg.connect(postgres_url) as other:
        other.execute("INSERT INTO orders VALUES (1)")
        with pytest.raises(LeaseHeldError, match="locked by another transaction"):
            jobs.using(other).submit("ship", {"order": 1}, job_id="order-1")
        db.commit()
        assert jobs.using(other).get_job("order-1") is not None
        assert other.execute("SELECT number FROM orders").fetchall() == [(1,)]


def test_connection_to_another_database_is_refused_and_stays_usable(
    jobs: Jobs, postgres_server: PostgresServer
) -> None:
    """Regression: the error advised to migrate, and the transaction had failed."""
    postgres_server.execute("DROP DATABASE IF EXISTS other")
    postgres_server.execute("CREATE DATABASE other")
    with psycopg.connect(postgres_server.url("other")) as other:
        for ask in (lambda: jobs.using(other).submit("ship", {"order": 1}), lambda: jobs.using(other).get_job("a")):
            with pytest.raises(InvalidInputError, match=r"^using: the connection is to a database without the schema"):
                ask()
            assert other.execute("SELECT 1").fetchone() == (1,)


def test_what_cannot_hold_is_refused_and_leaves_the_transaction_usable(
    jobs: Jobs, db: psycopg.Connection, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as automatic:
        with pytest.raises(InvalidInputError, match="autocommit"):
            jobs.using(automatic)
        with automatic.transaction():
            jobs.using(automatic).submit("ship", {"order": 1})
    assert jobs.count_jobs() == 1
    using = jobs.using(db)
    with pytest.raises(InvalidInputError, match=r"^after: there is no job 'missing'"):
        using.submit("ship", {"order": 1}, after=["job:missing"])
    with pytest.raises(InvalidInputError, match=r"^order: |^params"):
        using.submit("ship", {"order": "x"})
    db.execute("SELECT 1")
    db.rollback()
    db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with pytest.raises(InvalidInputError, match="READ COMMITTED"):
        jobs.using(db).submit("ship", {"order": 1}, unique_key="k")
    with pytest.raises(psycopg.errors.UndefinedTable):
        db.execute("SELECT * FROM missing")
    with pytest.raises(InvalidInputError, match="has failed; roll it back"):
        jobs.using(db)
    db.rollback()
    with pytest.raises(InvalidInputError, match="int is not a connection"):
        jobs.using(7)
    with pytest.raises(InvalidInputError, match="needs a PostgreSQL store"):
        Jobs("memory://").using(db)


def test_submit_many_creates_all_or_none(jobs: Jobs, db: psycopg.Connection) -> None:
    orders = [{"order": number} for number in range(3)]
    jobs.using(db).submit_many("ship", orders)
    db.rollback()
    with pytest.raises(InvalidInputError, match="order"):
        jobs.using(db).submit_many("ship", [*orders, {"order": "x"}])
    db.commit()
    assert jobs.count_jobs() == 0
    ids = jobs.using(db).submit_many("ship", orders)
    db.commit()
    assert [job.params for job_id in ids if (job := jobs.get_job(job_id))] == orders


async def test_async_connections_and_sessions(jobs: Jobs, db: psycopg.Connection, postgres_url: str) -> None:
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    engine = create_async_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    asynchronous = AsyncJobs(postgres_url, options=Settings(namespace="using"))
    async with AsyncSession(engine) as session:
        await asynchronous.using(session).submit("ship", {"order": 1})
        await session.rollback()
    async with AsyncSession(engine) as session, session.begin():
        await asynchronous.using(session).submit("ship", {"order": 2})
        await asynchronous.using(await session.connection()).submit_many("ship", [{"order": 3}])
        with pytest.raises(InvalidInputError, match="AsyncSession is asynchronous; use AsyncJobs"):
            jobs.using(session)
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        await asynchronous.using(connection).submit("ship", {"order": 4}, unique_key="k")
    with pytest.raises(InvalidInputError, match="Connection is not an AsyncConnection"):
        await asynchronous.using(db).submit("ship", {"order": 5})
    assert sorted(job.params["order"] for job in await asynchronous.list_jobs()) == [2, 3, 4]
    await asynchronous.close()
    await engine.dispose()


def test_sqlalchemy_session_and_connection(jobs: Jobs, postgres_url: str) -> None:
    from sqlalchemy import create_engine, text
    from sqlalchemy.orm import Session

    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    with Session(engine) as session:
        session.execute(text("INSERT INTO orders VALUES (1)"))
        jobs.using(session).submit("ship", {"order": 1})
        session.rollback()
    assert jobs.count_jobs() == 0
    with Session(engine) as session, session.begin():
        jobs.using(session).submit("ship", {"order": 1})
    with engine.begin() as connection:
        jobs.using(connection).submit("ship", {"order": 2})
    assert jobs.count_jobs() == 2
    engine.dispose()


def test_sqlalchemy_session_wakes_workers_once_and_only_after_its_commit(
    jobs: Jobs, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a long-lived session kept a listener for each submit, and the end of a savepoint woke workers."""
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session, scoped_session, sessionmaker

    woken: list[Any] = []
    monkeypatch.setattr(Notifications, "notify", lambda self, **what: woken.append(what))
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    with Session(engine) as session:
        for number in range(3):
            with session.begin_nested():
                jobs.using(session).submit("ship", {"order": number})
            assert len(woken) == number, "not at the end of a savepoint"
            session.commit()
            assert len(woken) == number + 1
        jobs.using(session).submit("ship", {"order": 4})
        session.rollback()
        session.commit()
        assert len(woken) == 3
        assert len(list(session.dispatch.after_commit)) == 1
    scoped = scoped_session(sessionmaker(engine))
    jobs.using(scoped).submit("ship", {"order": 5})
    scoped.commit()
    scoped.remove()
    assert len(woken) == 4
    engine.dispose()


def test_django_connection(jobs: Jobs, postgres_server: PostgresServer) -> None:
    program = f"""
import django
from django.conf import settings
settings.configure(DATABASES={{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": "postgres",
    "USER": "postgres", "HOST": "127.0.0.1", "PORT": {postgres_server.port}}}}})
django.setup()
from django.db import connection, transaction
from milepost import Jobs, Settings
jobs = Jobs({postgres_server.url()!r}, options=Settings(namespace="using"))
try:
    with transaction.atomic():
        jobs.using(connection).submit("ship", {{"order": 1}})
        raise KeyError
except KeyError:
    assert jobs.count_jobs() == 0
with transaction.atomic():
    jobs.using(connection).submit("ship", {{"order": 2}})
assert jobs.count_jobs() == 1
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
