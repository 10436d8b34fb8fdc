"""A PostgreSQL server that crashes, or fails over to its standby, while jobs are claimed, run and finished."""

from __future__ import annotations

from contextlib import closing

import pytest

from milepost import Jobs
from tests.chaos.conftest import MakeWorkers
from tests.chaos.test_failover import check_counts
from tests.postgres_server import PostgresServer, on_each_postgres
from tests.waiting import PATIENCE, until
from tests.worker.conftest import Workers
from tests.worker.job_assertions import starts

pytestmark = [pytest.mark.timing, pytest.mark.slow, pytest.mark.timeout(300), on_each_postgres]

LEASE = 30.0
"""Longer than the outages of a test together: a worker stops its runs when their leases cannot be renewed in time."""
SHORT = 60
"""Jobs that are claimed and finished at any moment of the outages."""


def begin(workers: Workers, jobs: Jobs) -> tuple[list[str], list[str]]:
    """Start two worker processes, and return the ids of jobs that run during the outages, and of short jobs."""
    for _ in range(2):
        workers.start(concurrency=4)
    long = [jobs.enqueue("steps", {"count": 100, "pause": 0.05}).job_id for _ in range(4)]
    workers.noted("began at 0", len(long))
    return long, [jobs.enqueue("noted", {"text": str(number)}).job_id for number in range(SHORT)]


def check_each_ran_once(jobs: Jobs, made: list[str]) -> None:
    """Check that each job completed in its first run, and that lists and counts agree."""
    for job_id in made:
        done = jobs.wait(job_id, 2 * PATIENCE)
        assert (done.status, done.attempt, done.crashes) == ("completed", 1, 0)
        assert starts(jobs, done) == 1
    check_counts(jobs, len(made))


def test_jobs_survive_crashes_of_the_server_and_run_once(make_workers: MakeWorkers, postgres_service: str) -> None:
    with PostgresServer(service=postgres_service, fsync=True) as server:
        workers = make_workers(server.url(), LEASE)
        with closing(workers.jobs()) as jobs:
            long, short = begin(workers, jobs)
            for number in range(1, 4):
                workers.noted("noted", number * SHORT // 4)
                server.stop("immediate")
                server.start()
            check_each_ran_once(jobs, [*long, *short])


def test_jobs_survive_failover_to_a_standby_and_run_once(make_workers: MakeWorkers, postgres_service: str) -> None:
    """Commits wait for the standby, so that nothing acknowledged is lost; that is not promised otherwise."""
    with PostgresServer(service=postgres_service, fsync=True) as primary, primary.standby() as standby:
        until(lambda: primary.fetch("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"))
        workers = make_workers(
            f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres", LEASE
        )
        with closing(workers.jobs()) as jobs:
            long, short = begin(workers, jobs)
            workers.noted("noted", SHORT // 4)
            primary.stop("immediate")
            standby.promote()
            check_each_ran_once(jobs, [*long, *short])
