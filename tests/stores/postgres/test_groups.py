"""Jobs that wait for groups while their members end in other processes, and in transactions that stay open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from milepost import Jobs, Run, Settings
from milepost.core.errors import LeaseHeldError
from milepost.stores.sync_bridge import run_sync
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service("postgresql")


@pytest.fixture
def jobs(postgres_server: PostgresServer) -> Iterator[Jobs]:
    """Yield jobs with a published type "load", in a process without workers: nothing is swept but by the test."""
    url, options = postgres_server.url(), Settings(namespace=postgres_server.emptied("groups"))
    worker = Jobs(url, options=options)

    @worker.job("load")
    def load(run: Run) -> None: ...

    with worker.run_workers():  # publishes the type
        pass
    worker.close()
    jobs = Jobs(url, options=options)
    yield jobs
    jobs.close()


@pytest.mark.parametrize("waiters", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_no_job_stays_held_while_members_end_in_several_processes(jobs: Jobs, postgres_url: str, waiters: int) -> None:
    for number in range(waiters):
        for member in ("a", "b"):
            jobs.create_job(f"{number}-{member}", group=str(number))
        jobs.create_job(f"{number}-single")
    jobs.create_job("never")
    jobs.submit("load", {}, job_id="held", after=["job:never"])
    words = [sys.executable, "-m", "tests.stores.postgres.group_child", postgres_url, "groups", str(waiters)]
    children = [
        subprocess.Popen([*words, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for what in ("a", "b", "single", "wait")
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        child.communicate()
        assert child.returncode == 0
    held = [job.job_id for job in jobs.list_jobs(job_type="load", limit=waiters + 1) if job.waiting_for]
    assert held == ["held"], "each was released by the commit that closed its last group, without a sweep"


def test_submit_in_open_transaction_hinders_no_member_and_is_released_after_the_commit(
    jobs: Jobs, postgres_url: str
) -> None:
    jobs.create_job("a", group="g")
    jobs.create_job("b")
    with psycopg.connect(postgres_url) as db:
        jobs.using(db).submit("load", {}, job_id="then", after=["job:b", "group:g"])
        jobs.update_job("a", status="completed")
        jobs.update_job("b", status="completed")
        with pytest.raises(LeaseHeldError):
            jobs.delete_job("b")
    held = jobs.get_job("then")
    assert held is not None
    assert held.waiting_for is not None
    jobs.create_job("another-write")
    released = jobs.get_job("then")
    assert released is not None
    assert released.waiting_for is None
    jobs.delete_job("b")


def test_sweep_releases_a_job_of_a_process_that_ended(jobs: Jobs, postgres_url: str) -> None:
    jobs.create_job("a", group="g")
    with psycopg.connect(postgres_url) as db:
        jobs.using(db).submit("load", {}, job_id="then", after=["group:g"])
        jobs.update_job("a", status="completed")
    other = Jobs(postgres_url, options=Settings(namespace="groups"))
    assert run_sync(other.store.sweep(lease=30, interval=0)).closing == ("group:g",)
    assert run_sync(other.store.sweep(lease=30, interval=0)).closing == ()
    assert (job := jobs.get_job("then")) is not None
    assert job.waiting_for is None
    other.close()
