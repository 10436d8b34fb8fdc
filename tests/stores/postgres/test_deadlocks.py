"""Deadlocks of transactions of callers that submit unique keys in opposite orders, on psycopg, SQLAlchemy and Django."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import psycopg
import pytest

from milepost import AsyncJobs, Jobs, Run
from milepost.core.errors import LeaseHeldError, StoreUnavailableError
from milepost.stores.postgres import PostgresStore
from tests.postgres_server import PostgresServer, on_each_postgres
from tests.stores.postgres.orders import empty_orders
from tests.waiting import PATIENCE, until

pytestmark = on_each_postgres

AT_ONCE, NEVER = ("?options=-cdeadlock_timeout%3D" + time for time in ("1ms", "1h"))
"""When a transaction that waits looks for a deadlock. That of the tests waits last, and is the one that fails."""
BOTH = re.compile(
    r"^postgresql://127\.0\.0\.1:\d+/postgres: deadlock with another transaction over the unique keys 'a' and 'b'; "
    "roll yours back and repeat it, and lock rows and submit unique keys in the same order everywhere$"
)


@pytest.fixture
def jobs(postgres_server: PostgresServer, postgres_url: str) -> Iterator[Jobs]:
    """Yield jobs that wait long for a lock, with a published type "ship", and an empty table of orders."""
    store = PostgresStore(postgres_server.url(), namespace=postgres_server.emptied("deadlocks"), patience=PATIENCE)
    jobs = Jobs(store)

    @jobs.job("ship")
    def ship(run: Run) -> None: ...

    empty_orders(postgres_url)
    with jobs.run_workers():  # publishes the type, for programs without the handler
        pass
    yield jobs
    jobs.close()


@pytest.fixture
def impatient(jobs: Jobs, postgres_url: str) -> Iterator[Jobs]:
    """Yield the same jobs with a short wait for a lock."""
    impatient = Jobs(PostgresStore(postgres_url, namespace="deadlocks", patience=0.2))
    yield impatient
    impatient.close()


class Other:
    """Another transaction, which has submitted the unique key b, and commits once it has submitted a."""

    def __init__(self, jobs: Jobs, url: str) -> None:
        self._jobs = jobs
        self._db = psycopg.connect(url + NEVER)
        self._jobs.using(self._db).submit("ship", unique_key="b")
        self._thread = threading.Thread(target=self._cross)

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.ident is not None:
            self._thread.join(PATIENCE)
        self._db.close()

    def _cross(self) -> None:
        self._jobs.using(self._db).submit("ship", unique_key="a")
        self._db.commit()

    def wait_for_a(self, server: PostgresServer) -> None:
        """Submit a, and return when that waits for the other transaction."""
        start_until_it_waits(self._thread, server)


def start_until_it_waits(thread: threading.Thread, server: PostgresServer) -> None:
    """Start a thread, and return when its transaction waits for a lock."""
    thread.start()
    until(lambda: server.fetch("SELECT 1 FROM pg_locks WHERE NOT granted"))


def keys(jobs: Jobs) -> list[str | None]:
    """Return the unique keys of all jobs."""
    return sorted(str(job.unique_key) for job in jobs.list_jobs())


@contextmanager
def psycopg_transaction(url: str) -> Iterator[Any]:
    with psycopg.connect(url) as db:
        yield db


def sqlalchemy_url(url: str) -> str:
    """Return the URL of a database for SQLAlchemy."""
    return url.replace("postgresql://", "postgresql+psycopg://")


@contextmanager
def sqlalchemy_session(url: str) -> Iterator[Any]:
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    engine = create_engine(sqlalchemy_url(url))
    try:
        with Session(engine) as session, session.begin():
            yield session
    finally:
        engine.dispose()


@contextmanager
def sqlalchemy_connection(url: str) -> Iterator[Any]:
    from sqlalchemy import create_engine

    engine = create_engine(sqlalchemy_url(url))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@pytest.mark.parametrize("transaction", [psycopg_transaction, sqlalchemy_session, sqlalchemy_connection])
def test_deadlock_is_reported_with_both_keys(
    jobs: Jobs,
    postgres_server: PostgresServer,
    postgres_url: str,
    transaction: Callable[[str], AbstractContextManager[Any]],
) -> None:
    """Regression: the error named neither key."""

    def submit(other: Other) -> None:
        with transaction(postgres_url + AT_ONCE) as db:
            jobs.using(db).submit("ship", unique_key="unrelated")
            jobs.using(db).submit("ship", unique_key="a")
            other.wait_for_a(postgres_server)
            jobs.using(db).submit("ship", unique_key="b")

    with Other(jobs, postgres_url) as other, pytest.raises(StoreUnavailableError, match=BOTH):
        submit(other)
    assert keys(jobs) == ["a", "b"], "those of the other transaction"
    with transaction(postgres_url) as db:
        jobs.using(db).submit("ship", unique_key="unrelated")
    assert keys(jobs) == ["a", "b", "unrelated"]


@asynccontextmanager
async def async_psycopg(url: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(url) as db:
        yield db


@asynccontextmanager
async def async_session(url: str) -> AsyncIterator[Any]:
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    engine = create_async_engine(sqlalchemy_url(url))
    try:
        async with AsyncSession(engine) as session, session.begin():
            yield session
    finally:
        await engine.dispose()


@pytest.mark.parametrize("transaction", [async_psycopg, async_session])
async def test_deadlock_of_an_async_transaction_is_reported_with_both_keys(
    jobs: Jobs, postgres_server: PostgresServer, postgres_url: str, transaction: Callable[[str], Any]
) -> None:
    store = PostgresStore(postgres_url, namespace="deadlocks", patience=PATIENCE, blocking=False)
    asynchronous = AsyncJobs(store)

    async def submit(other: Other) -> None:
        async with transaction(postgres_url + AT_ONCE) as db:
            await asynchronous.using(db).submit("ship", unique_key="a")
            other.wait_for_a(postgres_server)
            await asynchronous.using(db).submit("ship", unique_key="b")

    with Other(jobs, postgres_url) as other, pytest.raises(StoreUnavailableError, match=BOTH):
        await submit(other)
    await asynchronous.close()
    assert keys(jobs) == ["a", "b"]


def test_deadlock_of_django_is_reported_with_both_keys(
    jobs: Jobs, postgres_server: PostgresServer, postgres_url: str
) -> None:
    program = f"""
import django
from django.conf import settings
settings.configure(DATABASES={{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": "postgres",
    "USER": "postgres", "HOST": "127.0.0.1", "PORT": {postgres_server.port},
    "OPTIONS": {{"options": "-cdeadlock_timeout=1ms"}}}}}})
django.setup()
from django.db import connection, transaction
from milepost import Jobs
from milepost.core.errors import StoreUnavailableError
from milepost.stores.postgres import PostgresStore
jobs = Jobs(PostgresStore({postgres_url!r}, namespace="deadlocks", patience={PATIENCE}))
try:
    with transaction.atomic():
        jobs.using(connection).submit("ship", unique_key="a")
        print("ready", flush=True)
        input()
        jobs.using(connection).submit("ship", unique_key="b")
except StoreUnavailableError as error:
    print(error, flush=True)
"""
    with Other(jobs, postgres_url) as other:
        words = [sys.executable, "-c", program]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            other.wait_for_a(postgres_server)
            said, _ = child.communicate("\n", timeout=PATIENCE)
    assert BOTH.match(said.strip()), said
    assert keys(jobs) == ["a", "b"]


def test_deadlock_over_a_row_of_the_caller_is_reported_with_the_key(
    jobs: Jobs, postgres_server: PostgresServer, postgres_url: str
) -> None:
    lock_row = "SELECT number FROM orders FOR UPDATE"
    postgres_server.execute("INSERT INTO orders VALUES (1)")
    with psycopg.connect(postgres_url + NEVER) as other, psycopg.connect(postgres_url + AT_ONCE) as db:
        jobs.using(other).submit("ship", unique_key="a")
        db.execute(lock_row)
        thread = threading.Thread(target=other.execute, args=(lock_row,))
        start_until_it_waits(thread, postgres_server)
        with pytest.raises(
            StoreUnavailableError,
            match=r"deadlock with another transaction over the unique key 'a'; roll yours back and repeat it, and lock rows "
            "and submit unique keys in the same order everywhere$",
        ):
            jobs.using(db).submit("ship", unique_key="a")
        db.rollback()
        thread.join(PATIENCE)
    assert keys(jobs) == ["a"]


def test_wait_that_ends_before_a_deadlock_is_found_names_both_keys(
    jobs: Jobs, impatient: Jobs, postgres_server: PostgresServer, postgres_url: str
) -> None:
    with Other(jobs, postgres_url) as other, psycopg.connect(postgres_url + NEVER) as db:
        impatient.using(db).submit("ship", unique_key="unrelated")
        impatient.using(db).submit("ship", unique_key="a")
        other.wait_for_a(postgres_server)
        with pytest.raises(
            LeaseHeldError,
            match=r"^locked by another transaction for more than 0\.2 s over the unique keys 'a' and 'b'; "
            "nothing was written, try again$",
        ):
            impatient.using(db).submit("ship", unique_key="b")
        db.rollback()
    assert keys(jobs) == ["a", "b"]


def test_conflicts_over_a_job_id_name_it(
    jobs: Jobs, impatient: Jobs, postgres_server: PostgresServer, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url + NEVER) as other, psycopg.connect(postgres_url + AT_ONCE) as db:
        jobs.using(other).submit("ship", job_id="b")
        jobs.using(db).submit("ship", job_id="a")
        with pytest.raises(LeaseHeldError, match=r"for more than 0\.2 s over the job ID 'b'; nothing was written"):
            impatient.using(db).submit("ship", job_id="b")
        thread = threading.Thread(target=lambda: jobs.using(other).submit("ship", job_id="a"))
        start_until_it_waits(thread, postgres_server)
        with pytest.raises(StoreUnavailableError, match=r"deadlock with another transaction over the job ID 'b'; roll"):
            jobs.using(db).submit("ship", job_id="b")
        db.rollback()
        thread.join(PATIENCE)
        other.commit()
    assert sorted(job.job_id for job in jobs.list_jobs()) == ["a", "b"]


@pytest.mark.parametrize("is_async", [False, True])
def test_submit_without_a_transaction_names_what_another_one_has(
    jobs: Jobs, impatient: Jobs, postgres_url: str, is_async: bool
) -> None:
    """Regression: only a submit in a transaction of its own named it."""

    async def asynchronous(**options: Any) -> None:
        theirs = AsyncJobs(PostgresStore(postgres_url, namespace="deadlocks", patience=0.2, blocking=False))
        try:
            await theirs.submit("ship", **options)
        finally:
            await theirs.close()

    def submit(**options: Any) -> None:
        if is_async:
            asyncio.run(asynchronous(**options))
        else:
            impatient.submit("ship", **options)

    def refused(**options: Any) -> str:
        with pytest.raises(LeaseHeldError) as found:
            submit(**options)
        return str(found.value)

    with psycopg.connect(postgres_url) as other:
        jobs.using(other).submit("ship", unique_key="a")
        jobs.using(other).submit("ship", job_id="b")
        end = "; nothing was written, try again"
        assert (
            refused(unique_key="a") == f"locked by another transaction for more than 0.2 s over the unique key 'a'{end}"
        )
        assert refused(job_id="b") == f"locked by another transaction for more than 0.2 s over the job ID 'b'{end}"
        other.rollback()
    assert keys(jobs) == []
