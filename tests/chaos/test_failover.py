"""A failover while jobs run: workers continue with the new master, and no job is in two states."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from milepost import Jobs
from milepost.stores.sync_bridge import run_sync
from tests.chaos.conftest import MakeWorkers
from tests.stores.redis.clusters import watched_pair
from tests.waiting import PATIENCE
from tests.worker.job_assertions import starts

pytestmark = pytest.mark.timing


@pytest.mark.slow
@pytest.mark.service("redis-server")
@pytest.mark.timeout(300)
def test_running_jobs_survive_failover_and_end_once(tmp_path: Path, make_workers: MakeWorkers) -> None:
    with watched_pair(tmp_path) as pair:
        workers = make_workers(pair.url)
        with closing(workers.jobs()) as jobs:
            for _ in range(2):
                workers.start(concurrency=3)
            made = [jobs.enqueue("steps", {"count": 200, "pause": workers.lease / 20}) for _ in range(6)]
            workers.noted("began at 0", 6)
            pair.settle()  # what was not replicated is lost in a failover, and that is not promised
            pair.master.kill()
            after = [jobs.enqueue("noted", {"text": str(number)}) for number in range(10)]
            for job in (*made, *after):
                done = jobs.wait(job.job_id, 2 * PATIENCE)
                assert (done.status, done.attempt, done.crashes) == ("completed", 1, 0)
            assert {starts(jobs, job) for job in after} == {1}
            with pair.replica.client() as client:
                assert client.info("replication")["role"] == "master"
            check_counts(jobs, len(made) + len(after))


def check_counts(jobs: Jobs, many: int) -> None:
    """Check that lists and counts agree on this number of jobs, each completed."""
    listed = jobs.list_jobs(limit=1000)
    assert len({job.job_id for job in listed}) == len(listed) == many
    assert {job.status.value for job in listed} == {"completed"}
    assert sum(run_sync(jobs.store.counts()).values()) == many
    assert {status for (_, status), count in run_sync(jobs.store.counts()).items() if count} == {"completed"}
