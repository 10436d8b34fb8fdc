"""The depth of the queues and the age of their oldest claimable job, on each store."""

from __future__ import annotations

import pytest

from milepost import Jobs, Run
from milepost.query import depth
from milepost.query.depth import Depth, read_depths
from milepost.stores.sync_bridge import run_sync
from milepost.testing import jobs_under_test


def test_depths_are_by_type_and_queue(jobs: Jobs) -> None:
    @jobs.job("a")
    def a(run: Run) -> None:
        run.log("a")

    @jobs.job("b", queue="slow")
    def b(run: Run) -> None:
        run.log("b")

    with_worker = jobs.worker()  # so that no worker starts in memory
    jobs.submit_many(a, [{}] * 3)
    jobs.submit(a.options(delay="1h"))
    jobs.submit(a.options(queue="other"))
    jobs.submit(b)
    jobs.create_job(job_type="manual")
    found = run_sync(read_depths(jobs.store))
    assert with_worker.running == 0
    shown = {key: (one.claimable, one.scheduled) for key, one in found.items()}
    assert shown == {
        ("a", "a"): (3, 1),
        ("a", "other"): (1, 0),
        ("b", "b"): (0, 0),
        ("b", "slow"): (1, 0),
        ("manual", "manual"): (0, 0),
    }
    assert all((one.oldest > 0) == (one.claimable > 0) for one in found.values())


def test_jobs_that_wait_for_others_are_apart(jobs: Jobs) -> None:
    @jobs.job("a")
    def a(run: Run) -> None:
        run.log("a")

    jobs.worker()
    first = jobs.submit(a)
    jobs.submit_many(a, [{}] * 2, after=[first])
    jobs.pause(jobs.submit(a).job_id)
    jobs.submit(a.options(delay="1h"))
    found = run_sync(read_depths(jobs.store))["a", "a"]
    assert (found.claimable, found.scheduled, found.waiting) == (1, 1, 3)
    jobs.cancel_job(first.job_id)
    assert run_sync(read_depths(jobs.store))["a", "a"].waiting == 1


def test_age_is_that_of_oldest_job_that_may_start() -> None:
    with jobs_under_test() as jobs:

        @jobs.job("a")
        def a(run: Run) -> None:
            run.log("a")

        jobs.submit(a.options(delay="2h"))
        jobs.clock.advance("1h")
        jobs.submit(a.options(priority=5))
        jobs.clock.advance(60)
        jobs.submit(a)
        assert round(run_sync(read_depths(jobs.store))["a", "a"].oldest) == 60
        jobs.clock.advance("2h")
        assert round(run_sync(read_depths(jobs.store))["a", "a"].oldest) == 7260
        jobs.drain()
        assert run_sync(read_depths(jobs.store))["a", "a"] == Depth()


def test_older_jobs_than_are_read_count_as_claimable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth, "PAGE", 2)
    monkeypatch.setattr(depth, "MAX_READ", 4)
    with jobs_under_test() as jobs:

        @jobs.job("a")
        def a(run: Run) -> None:
            run.log("a")

        jobs.submit(a)
        jobs.clock.advance("1h")
        jobs.submit_many(a, [{}] * 5)
        jobs.submit(a.options(delay="1h"))
        found = run_sync(read_depths(jobs.store))["a", "a"]
        assert (found.claimable, found.scheduled, round(found.oldest)) == (6, 1, 3600)
