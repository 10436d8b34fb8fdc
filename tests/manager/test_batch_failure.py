"""The failure and the cancel of a batch, also if they are repeated, come too late, or meet a locked job."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

from milepost import Jobs, Run
from milepost.app.batches import Batch
from milepost.core.errors import IllegalTransitionError, InvalidInputError, StoreUnavailableError
from milepost.core.values import MemberCounts, Receipt
from milepost.stores.postgres.store import PostgresStore
from milepost.stores.sync_bridge import run_sync
from tests.postgres_server import PostgresServer
from tests.waiting import PATIENCE, until


def load(run: Run, fails: bool = False) -> None:
    if fails:
        raise ValueError("no such file")


@pytest.fixture
def jobs(idle_jobs: Jobs) -> Jobs:
    idle_jobs.job("load")(load)
    return idle_jobs


def test_repeated_failure_cancels_what_is_still_open(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: if the store failed between the failure of a batch and the cancels, its jobs continued to run."""

    async def fail_to_answer(group: str, limit: int) -> list[str]:
        raise StoreUnavailableError("away")

    batch = jobs.batch("b")._async
    run_sync(batch.open())
    run_sync(batch.submit("load", {}, job_id="one"))
    with monkeypatch.context() as away:
        away.setattr(jobs.store, "open_members", fail_to_answer)
        with pytest.raises(StoreUnavailableError):
            run_sync(batch.fail("no more files"))
    assert run_sync(batch.counts()) == MemberCounts(total=1, open=1)
    run_sync(batch.fail("again"))
    assert run_sync(batch.counts()) == MemberCounts(total=1, cancelled=1)
    assert jobs.wait("b", PATIENCE).error == "no more files"


def test_failure_after_the_end_cancels_no_retried_job(jobs: Jobs) -> None:
    with jobs.batch("b") as batch:
        bad = batch.submit("load", {"fails": True})
    with jobs.run_workers():
        assert batch.wait(PATIENCE).status == "failed"
    jobs.retry_job(bad.job_id)
    run_sync(batch._async.fail("too late"))
    assert batch.counts() == MemberCounts(total=1, open=1)


def test_cancelled_batch_cancels_its_open_jobs(jobs: Jobs) -> None:
    """Its jobs continued: only the record was cancelled."""
    started = threading.Event()

    @jobs.job("long")
    def long(run: Run) -> None:
        while started.set() is None:
            run.check()
            time.sleep(0.01)

    batch = jobs.batch("b")
    with jobs.run_workers():
        with batch:
            batch.submit("long", {}, job_id="running")
            batch.submit("load", {}, job_id="waiting", queue="other")
            batch.submit("load", {}, job_id="paused", queue="other")
        after = batch.then("load", {}, queue="other")
        jobs.pause("paused")
        assert started.wait(PATIENCE)
        jobs.cancel_job("b", "wrong files", by="ana")
        assert batch.counts() == MemberCounts(total=3, cancelled=3)
        assert (receipt := receipt_of(jobs, "running")).how == "cooperative", receipt
    assert jobs.wait(after, PATIENCE).status == "cancelled"
    for name in ("running", "waiting", "paused"):
        receipt = receipt_of(jobs, name)
        assert (receipt.requested_by, receipt.reason) == ("ana", "batch b was cancelled: wrong files")
    with pytest.raises(IllegalTransitionError, match="status cancelled"):
        jobs.cancel_job("b")
    with pytest.raises(InvalidInputError, match="batch 'b' is closed"):
        batch.submit("load", {})


def receipt_of(jobs: Jobs, job_id: str) -> Receipt:
    """Return the receipt of a stop, once it is confirmed."""

    def confirmed() -> Receipt | None:
        receipt = jobs.wait(job_id, PATIENCE).receipt
        return receipt if receipt is not None and receipt.confirmed else None

    found: Receipt = until(confirmed)
    return found


def test_repeated_cancel_of_a_batch_cancels_what_is_still_open(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail_to_answer(group: str, limit: int) -> list[str]:
        raise StoreUnavailableError("away")

    with jobs.batch("b") as batch:
        for number in range(3):
            batch.submit("load", {}, job_id=f"j{number}")
    with monkeypatch.context() as away:
        away.setattr(jobs.store, "open_members", fail_to_answer)
        with pytest.raises(StoreUnavailableError):
            jobs.cancel_job("b")
    assert batch.counts() == MemberCounts(total=3, open=3)
    assert jobs.cancel_job("b").status == "cancelled"
    assert batch.counts() == MemberCounts(total=3, cancelled=3)


def test_update_of_a_batch_to_cancelled_cancels_its_open_jobs(jobs: Jobs) -> None:
    with jobs.batch("b") as batch:
        batch.submit("load", {}, job_id="one")
    jobs.update_job("b", status="cancelled")
    assert batch.counts() == MemberCounts(total=1, cancelled=1)
    assert jobs.wait("one", PATIENCE).status == "cancelled"


def test_job_that_only_looks_like_a_batch_is_cancelled_alone(jobs: Jobs) -> None:
    jobs.create_job("b", "batch")
    jobs.submit("load", {}, job_id="one", group="b")
    jobs.cancel_job("b")
    assert jobs.get_job("one").status == "pending"  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.service("postgresql")
def test_locked_job_hides_no_exception_of_the_block(postgres_server: PostgresServer) -> None:
    """Regression: the block raised LeaseHeldError in place of its own exception, and no job was cancelled."""
    url = postgres_server.url()
    jobs = Jobs(PostgresStore(url, namespace=postgres_server.emptied("batches"), patience=0.2))

    def fill(batch: Batch, db: psycopg.Connection[Any]) -> None:
        with batch:
            for number in range(6):
                batch.submit("load", {}, job_id=f"j{number}")
            db.execute("SELECT 1 FROM batches.jobs WHERE id IN ('j0', 'j1', 'j2') FOR UPDATE")
            raise OSError("the disk is full")

    jobs.job("load")(load)
    jobs.worker()
    with psycopg.connect(url) as db, pytest.raises(OSError, match="full"):
        fill(jobs.batch("b"), db)
    assert jobs.batch("b").counts() == MemberCounts(total=6, open=3, cancelled=3)
    run_sync(jobs.batch("b")._async.fail("again"))
    assert jobs.batch("b").counts() == MemberCounts(total=6, cancelled=6)
    jobs.close()
