"""Checkpoints and results that commit with a transaction of the handler, under the lease of its run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from milepost import AsyncRun, Jobs, Run, Settings
from milepost.core.errors import InvalidInputError, JobCancelled, LeaseHeldError, LeaseLost
from milepost.stores.postgres import PostgresStore
from milepost.stores.sync_bridge import run_sync
from tests.chaos.calibration import slowness
from tests.postgres_server import PostgresServer
from tests.stores.postgres.orders import empty_orders, orders
from tests.waiting import PATIENCE, lose_lease, until

pytestmark = pytest.mark.service("postgresql")


@pytest.fixture
def jobs(postgres_server: PostgresServer, postgres_url: str) -> Iterator[Jobs]:
    """Yield jobs whose store waits 0.5 s for a lock, and an empty table of orders."""
    empty_orders(postgres_url)
    store = PostgresStore(postgres_server.url(), namespace=postgres_server.emptied("finish"), patience=0.5)
    jobs = Jobs(store, options=Settings(lease=4 * slowness(), heartbeat=0.2))
    yield jobs
    jobs.close()


Insert = Callable[[Any, int], Any]


@contextmanager
def psycopg_transaction(url: str) -> Iterator[tuple[Any, Insert]]:
    with psycopg.connect(url) as db:
        yield db, lambda _, number: db.execute("INSERT INTO orders VALUES (%s)", (number,))


@contextmanager
def sqlalchemy_transaction(url: str) -> Iterator[tuple[Any, Insert]]:
    from sqlalchemy import create_engine, text
    from sqlalchemy.orm import Session

    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with Session(engine) as session, session.begin():
            yield session, lambda _, number: session.execute(text("INSERT INTO orders VALUES (:n)"), {"n": number})
    finally:
        engine.dispose()


BLOCKING = pytest.mark.parametrize("transaction", [psycopg_transaction, sqlalchemy_transaction])


@BLOCKING
def test_result_exists_if_the_transaction_of_the_handler_commits(
    jobs: Jobs, postgres_url: str, transaction: Any
) -> None:
    @jobs.job("ship", max_attempts=1)
    def ship(run: Run, order: int, fails: bool) -> dict[str, int]:
        with transaction(postgres_url) as (db, insert):
            insert(db, order)
            run.log("shipping")
            done = run.finish({"shipped": order}, using=db)
            if fails:
                raise ValueError("no lamp")
        return done

    with jobs.run_workers():
        good = jobs.wait(jobs.submit(ship, order=1, fails=False), timeout=PATIENCE)
        bad = jobs.wait(jobs.submit(ship, order=2, fails=True), timeout=PATIENCE)
    assert (good.status, good.result) == ("completed", {"shipped": 1})
    assert (bad.status, bad.error) == ("failed", "no lamp")
    assert orders(postgres_url) == [1]
    assert "shipping" in str([event.data for event in jobs.events(good.job_id)])


def test_async_handlers_finish_in_async_transactions(jobs: Jobs, postgres_url: str) -> None:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    @jobs.job("native", max_attempts=1)
    async def native(run: AsyncRun, order: int) -> int:
        async with await psycopg.AsyncConnection.connect(postgres_url) as db:
            await db.execute("INSERT INTO orders VALUES (%s)", (order,))
            await run.acheckpoint("half", using=db)
            return await run.finish(order, using=db)

    @jobs.job("session", max_attempts=1)
    async def session(run: AsyncRun, order: int) -> int:
        engine = create_async_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
        try:
            async with AsyncSession(engine) as db, db.begin():
                await db.execute(text("INSERT INTO orders VALUES (:n)"), {"n": order})
                await run.finish(order, using=db)
                if order == 3:
                    raise ValueError("no lamp")
            return order
        finally:
            await engine.dispose()

    with jobs.run_workers():
        ends = [
            jobs.wait(jobs.submit(target, order=n), timeout=PATIENCE)
            for target, n in ((native, 1), (session, 2), (session, 3))
        ]
    assert [(end.status.value, end.result) for end in ends] == [("completed", 1), ("completed", 2), ("failed", None)]
    assert orders(postgres_url) == [1, 2]


def test_run_without_lease_cannot_commit(jobs: Jobs, postgres_url: str) -> None:
    seen = []

    @jobs.job("ship", max_attempts=1)
    def ship(run: Run, order: int) -> None:
        with psycopg.connect(postgres_url) as db:
            db.execute("INSERT INTO orders VALUES (%s)", (order,))
            lose_lease(jobs.store, run.job_id, run.token)
            for write in (lambda: run.checkpoint(1, using=db), lambda: run.finish(1, using=db)):
                try:
                    write()
                except LeaseLost as stop:
                    seen.append(str(stop))
            run.check()

    with jobs.run_workers():
        jobs.submit(ship, order=1)
        until(lambda: len(seen) == 2)
    assert orders(postgres_url) == []


def test_checkpoint_commits_with_the_transaction(jobs: Jobs, postgres_url: str) -> None:
    seen: list[Any] = []

    @jobs.job("ship", max_attempts=3, backoff=lambda attempt: 0)
    def ship(run: Run) -> str:
        seen.append(run.last_checkpoint)
        with psycopg.connect(postgres_url) as db:
            db.execute("INSERT INTO orders VALUES (%s)", (run.attempt,))
            run.checkpoint({"attempt": run.attempt, "text": "x" * 70_000}, using=db)
            with pytest.raises(InvalidInputError, match="a transaction with an earlier checkpoint"):
                run.checkpoint("plain")
            with pytest.raises(InvalidInputError, match="a transaction with an earlier checkpoint"):
                run.step("key", lambda: 1)
            if run.attempt == 2:
                db.rollback()
        run.step("other", lambda: 1)
        if run.attempt < 3:
            raise ValueError("again")
        return "done"

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(ship), timeout=PATIENCE)
    assert (job.status, job.error) == ("completed", None)
    first = {"attempt": 1, "text": "x" * 70_000}
    assert seen == [None, first, first]
    assert orders(postgres_url) == [1, 3]


def test_rollback_after_finish_fails_the_run(jobs: Jobs, postgres_url: str) -> None:
    @jobs.job("ship", max_attempts=1)
    def ship(run: Run, again: bool) -> int:
        with psycopg.connect(postgres_url) as db:
            with db.transaction():
                try:
                    with db.transaction():
                        run.finish(1, using=db)
                        raise ValueError
                except ValueError:
                    pass
            if again:
                run.checkpoint("plain")
                return run.finish(2, using=db)
            return 1

    with jobs.run_workers():
        failed = jobs.wait(jobs.submit(ship, again=False), timeout=PATIENCE)
        good = jobs.wait(jobs.submit(ship, again=True), timeout=PATIENCE)
    assert failed.status == "failed"
    assert "its transaction was rolled back" in (failed.error or "")
    assert (good.status, good.result) == ("completed", 2)


def test_run_notices_a_cancel_after_its_finish_was_rolled_back(jobs: Jobs, postgres_url: str) -> None:
    """Regression: a run that continued reported nothing, and never noticed a cancel or the loss of its lease."""
    seen: list[str] = []
    started = threading.Event()

    @jobs.job("ship", max_attempts=1)
    def ship(run: Run) -> None:
        with psycopg.connect(postgres_url) as db:
            run.finish(1, using=db)
            db.rollback()
        started.set()
        try:
            until(run.check)  # until it raises
        except JobCancelled:
            seen.append("cancelled")
            raise

    with jobs.run_workers():
        job = jobs.submit(ship)
        assert started.wait(PATIENCE)
        jobs.cancel_job(job.job_id)
        until(lambda: seen)
    assert seen == ["cancelled"]


def test_result_that_was_rolled_back_and_then_cancelled_does_not_count_as_committed(
    jobs: Jobs, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    @jobs.job("ship", max_attempts=1)
    def ship(run: Run) -> None:
        with psycopg.connect(postgres_url) as db:
            run.finish(1, using=db)
            db.rollback()
            jobs.cancel_job(run.job_id)
        raise ValueError("no lamp")

    with jobs.run_workers():
        job = jobs.submit(ship)
        until(lambda: (found := jobs.get_job(job.job_id)) and found.receipt and found.receipt.confirmed)
    assert "after its result was committed" not in caplog.text


def test_log_lines_are_kept_while_the_record_is_locked(jobs: Jobs, postgres_url: str) -> None:
    """Regression: the lines of the time in which a transaction had locked the record were lost."""
    started, locked, leave = threading.Event(), threading.Event(), threading.Event()

    @jobs.job("ship", max_attempts=1)
    def ship(run: Run) -> None:
        started.set()
        assert locked.wait(PATIENCE)
        run.log("while locked")
        assert leave.wait(PATIENCE)
        run.log("after it")

    with jobs.run_workers():
        job = jobs.submit(ship)
        assert started.wait(PATIENCE)
        with psycopg.connect(postgres_url) as db:
            db.execute("SELECT 1 FROM finish.jobs WHERE id = %s FOR UPDATE", (job.job_id,))
            locked.set()
            began = run_sync(jobs.store.now())
            until(lambda: run_sync(jobs.store.now()) > began + 3_000_000)  # some beats that wait 0.5 s, twice
        leave.set()
        assert jobs.wait(job, timeout=PATIENCE).status == "completed"
    text = str([event.data for event in jobs.events(job.job_id)])
    assert ("while locked" in text, "after it" in text) == (True, True)


@pytest.mark.parametrize("leases", [2, pytest.param(75, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)])])
def test_open_transaction_hinders_no_other_run(jobs: Jobs, postgres_url: str, leases: int) -> None:
    """The longer one keeps a transaction open for five minutes."""
    entered, leave = threading.Event(), threading.Event()
    seconds = leases * jobs.settings.lease

    @jobs.job("ship", max_attempts=1)
    def ship(run: Run, finishes: bool) -> int:
        with psycopg.connect(postgres_url) as db:
            db.execute("INSERT INTO orders VALUES (1)")
            (run.finish if finishes else run.checkpoint)(7, using=db)
            entered.set()
            assert leave.wait(PATIENCE + seconds)
        return 7

    @jobs.job("other")
    def other(run: Run) -> None:
        while not leave.is_set():
            run.log("still here")
            run.check()
            leave.wait(0.05)

    with jobs.run_workers():
        for finishes in (True, False):
            leave.clear()
            entered.clear()
            waiting = jobs.submit(ship, finishes=finishes)
            beside = jobs.submit(other)
            assert entered.wait(PATIENCE)
            with pytest.raises(LeaseHeldError, match="committing its"):
                jobs.cancel_job(waiting.job_id)
            with pytest.raises(LeaseHeldError, match="committing its"):
                jobs.delete_job(waiting.job_id)
            leased = run_sync(jobs.store.now())
            until(lambda leased=leased: run_sync(jobs.store.now()) > leased + 1e6 * seconds, PATIENCE + seconds)
            jobs.submit("other", {}, priority=-1, delay="1h")
            for job_id in (waiting.job_id, beside.job_id):
                job = jobs.get_job(job_id)
                assert job is not None
                assert (job.status, job.attempt, job.crashes) == ("running", 1, 0)
            leave.set()
            assert jobs.wait(waiting, timeout=PATIENCE).result == 7
            assert jobs.wait(beside, timeout=PATIENCE).status == "completed"
    assert orders(postgres_url) == [1, 1]


def test_using_is_refused_where_it_cannot_hold(jobs: Jobs, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as db:
        with jobs.track("block") as run, pytest.raises(InvalidInputError, match="for handlers of workers"):
            run.checkpoint(1, using=db)
        db.isolation_level = psycopg.IsolationLevel.SERIALIZABLE

        @jobs.job("ship", max_attempts=1)
        def ship(run: Run) -> None:
            run.finish(None, using=db)

        with jobs.run_workers():
            job = jobs.wait(jobs.submit(ship), timeout=PATIENCE)
        assert "needs a transaction with the isolation READ COMMITTED" in (job.error or "")


def test_children_are_made_before_the_result_and_awaited_after_the_transaction(jobs: Jobs, postgres_url: str) -> None:
    @jobs.job("child")
    def child(run: Run) -> str:
        return "done"

    @jobs.job("parent", max_attempts=1)
    def parent(run: Run, joins: bool) -> str:
        run.submit_child("only", child)
        with psycopg.connect(postgres_url) as db:
            run.checkpoint("started", using=db)
            if joins:
                with pytest.raises(InvalidInputError, match=r"^join: a transaction with"):
                    run.join()
        if joins:
            return str(run.join().result("only"))
        with psycopg.connect(postgres_url) as db:
            run.submit_child("last", child)
            run.finish("finished", using=db)
            with pytest.raises(InvalidInputError, match=r"^step: a transaction with"):
                run.step("key", lambda: 1)
        return "finished"

    with jobs.run_workers():
        for joins, result in ((True, "done"), (False, "finished")):
            job = jobs.wait(jobs.submit(parent, joins=joins), timeout=PATIENCE)
            assert (job.error, job.result) == (None, result)
            children = [one for one in jobs.list_jobs(job_type="child") if one.parent_id == job.job_id]
            assert len(children) == (1 if joins else 2)
            assert [jobs.wait(one.job_id, timeout=PATIENCE).result for one in children] == ["done"] * len(children)


def test_open_transaction_of_a_parent_hinders_no_other_job(jobs: Jobs, postgres_url: str) -> None:
    """A claim waited for the record of the parent, and the outcomes of the worker with it."""
    entered, leave = threading.Event(), threading.Event()

    @jobs.job("child", concurrency=2)
    def child(run: Run) -> None: ...

    @jobs.job("parent", max_attempts=1)
    def parent(run: Run) -> None:
        for number in range(20):
            run.submit_child(str(number), child.options(priority=9))
        with psycopg.connect(postgres_url) as db:
            run.finish(None, using=db)
            entered.set()
            assert leave.wait(PATIENCE)

    with jobs.run_workers(concurrency=4):
        job = jobs.submit(parent)
        assert entered.wait(PATIENCE)
        try:
            assert jobs.wait(jobs.submit(child), timeout=PATIENCE).status == "completed"
        finally:
            leave.set()
        assert jobs.wait(job, timeout=PATIENCE).status == "completed"
        until(lambda: jobs.count_jobs("child", "completed") == 21)
