"""Published job types: kept next to older releases, and restored after the store was emptied."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from milepost import Jobs, Run, Secret
from milepost.stores.sync_bridge import run_sync
from milepost.worker import registry
from tests.waiting import PATIENCE, until
from tests.worker.conftest import MakeJobs
from tests.worker.job_assertions import Signals


def old_release(make_jobs: MakeJobs, **options: Any) -> Jobs:
    jobs = make_jobs(**options)

    @jobs.job("mail")
    def mail(run: Run, to: str) -> str:
        return "old"

    return jobs


def new_release(make_jobs: MakeJobs, **options: Any) -> Jobs:
    jobs, none = make_jobs(**options), Secret("")

    @jobs.job("mail")
    def mail(run: Run, to: str, token: Secret = none) -> str:
        return "new"

    return jobs


def schema_names(jobs: Jobs) -> list[str]:
    return list(jobs.job_type("mail").schema["properties"])


@pytest.fixture
def url(shared_url: str) -> str:
    """Return the URL of a store that the processes of several releases can share."""
    return shared_url


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRATION_INTERVAL", 0.05)
    monkeypatch.setattr(registry, "PUBLISH_INTERVAL", 0.1)


def test_older_worker_does_not_replace_newer_type(make_jobs: MakeJobs) -> None:
    """Regression: an old worker that started during a deploy published its old schema over the new one.

    Submits with a new parameter were rejected, and a parameter that only the new code marks Secret was stored unmasked.
    """
    outside = make_jobs()
    with old_release(make_jobs).run_workers(concurrency=1):
        assert schema_names(outside) == ["to"]
        with new_release(make_jobs).run_workers(concurrency=1):
            assert schema_names(outside) == ["to", "token"]
            with old_release(make_jobs).run_workers(concurrency=1):
                for _ in range(20):
                    assert schema_names(outside) == ["to", "token"]
                    asyncio.run(asyncio.sleep(0.02))
                job = outside.submit("mail", {"to": "a", "token": "s3cret-token"})
                assert job.record["secrets"] == "token"


def test_older_worker_republishes_without_newer_worker(make_jobs: MakeJobs) -> None:
    """After a rollback the types of the older release are valid again."""
    outside = make_jobs()
    with old_release(make_jobs).run_workers(concurrency=1):
        with new_release(make_jobs).run_workers(concurrency=1):
            assert schema_names(outside) == ["to", "token"]
        until(lambda: schema_names(outside) == ["to"])
    with new_release(make_jobs).run_workers(concurrency=1):
        until(lambda: schema_names(outside) == ["to", "token"])


def test_older_worker_leaves_job_of_newer_release(
    make_jobs: MakeJobs, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a job with a new parameter failed permanently when an old worker claimed it during a deploy."""
    monkeypatch.setattr(registry, "LEFT_TO_NEWER_SECONDS", 0.2)
    old, new, outside = old_release(make_jobs), new_release(make_jobs), make_jobs()

    @new.job("blocks")
    def blocks(run: Run) -> None:
        signals.began.set()
        signals.let_go.wait(PATIENCE)

    with old.run_workers(concurrency=1), new.run_workers(concurrency=1):
        new.submit("blocks")
        assert signals.began.wait(PATIENCE)
        job = outside.submit("mail", {"to": "a", "token": "s3cret-token"})
        bad = outside.enqueue("mail", {"to": "a", "tokn": "x"})
        until(lambda: "released" in [event.kind for event in outside.events(job.job_id)])
        failed = outside.wait(bad.job_id, PATIENCE)
        assert failed.failure is not None
        assert failed.failure.kind == "bad_parameters", "no worker accepts that parameter"
        signals.let_go.set()
        done = outside.wait(job.job_id, PATIENCE)
    assert (done.status, done.result, done.attempt, done.crashes) == ("completed", "new", 1, 0)


def test_older_worker_leaves_job_that_newer_release_submits(
    make_jobs: MakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a job failed permanently when its web server was deployed before the workers of the same release."""
    monkeypatch.setattr(registry, "LEFT_TO_NEWER_SECONDS", 0.2)
    old, new, outside = old_release(make_jobs), new_release(make_jobs), make_jobs()
    with old.run_workers(concurrency=1):
        until(outside.job_types)
        job = new.submit(new.handlers["mail"], to="a", token="s3cret-token")
        bad = outside.enqueue("mail", {"to": "a", "tokn": "x"})
        until(lambda: "released" in [event.kind for event in outside.events(job.job_id)])
        failed = outside.wait(bad.job_id, PATIENCE)
        assert failed.failure is not None
        assert failed.failure.kind == "bad_parameters", "no release accepts that parameter"
        with new.run_workers(concurrency=1):
            done = outside.wait(job.job_id, PATIENCE)
    assert (done.status, done.result, done.attempt, done.crashes) == ("completed", "new", 1, 0)


def test_job_is_not_left_to_newer_release_of_another_type(make_jobs: MakeJobs) -> None:
    """Regression: a job of `mail` was left to a newer release that submits `mail/urgent`."""
    old, new, outside = old_release(make_jobs), make_jobs(), make_jobs()

    @old.job("mail/urgent")
    def urgent(run: Run, to: str) -> None:
        """The version of the old release."""

    @new.job("mail/urgent")
    def newer(run: Run, to: str, token: str = "") -> None:
        """The version of the newer release."""

    with old.run_workers(concurrency=1):
        until(lambda: len(outside.job_types()) == 2)
        new.submit(newer, to="a")
        failed = outside.wait(outside.enqueue("mail", {"to": "a", "token": "x"}).job_id, PATIENCE)
    assert failed.failure is not None
    assert failed.failure.kind == "bad_parameters"


def test_newer_worker_fails_job_of_older_release(make_jobs: MakeJobs) -> None:
    """A release that has been replaced comes back only by a rollback, so its jobs do not wait for it."""
    old, new = old_release(make_jobs), make_jobs()

    @new.job("mail", max_attempts=3)
    def mail(run: Run, address: str) -> str:
        return address

    with old.run_workers(concurrency=1):
        until(new.job_types)
    with new.run_workers(concurrency=1):
        until(lambda: "address" in new.job_type("mail").schema["properties"])
        failed = new.wait(old.submit(old.handlers["mail"], to="a").job_id, PATIENCE)
    assert failed.failure is not None
    assert failed.failure.kind == "bad_parameters"


def test_types_are_republished_after_store_was_emptied(make_jobs: MakeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: after FLUSHALL the types of live workers were unknown for up to an hour."""
    monkeypatch.setattr(registry, "PUBLISH_INTERVAL", 3600.0)
    outside = make_jobs()
    with old_release(make_jobs).run_workers(concurrency=1):
        for prefix in ("type/", "worker/"):
            for item in run_sync(outside.store.kv_scan(prefix)):
                run_sync(outside.store.kv_delete(item.key))
        until(outside.workers)
        until(outside.job_types)
        assert outside.wait(outside.submit("mail", {"to": "a"}).job_id, PATIENCE).result == "old"
