"""SIGKILL of workers between "the row of the user is written" and "commit": rows are those of completed jobs, each once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from milepost import Job, Jobs, Settings
from tests.postgres_server import OTHER_POSTGRES, PostgresServer
from tests.stores.postgres.orders import empty_orders, orders

pytestmark = pytest.mark.service("postgresql")

WINDOW = 30_000
"""Microseconds after the row was written over which the kills are spread evenly; a worker may have ended before its kill."""
BATCH = 1_000


@pytest.mark.parametrize(
    ("postgres_service", "kills"),
    [
        ("postgresql", 5),
        pytest.param("postgresql", 100, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
        pytest.param("postgresql", 10_000, marks=[pytest.mark.nightly, pytest.mark.timeout(7200)]),
        *(pytest.param(*other.values, 20, marks=other.marks) for other in OTHER_POSTGRES),
    ],
    indirect=["postgres_service"],
    scope="session",
)
def test_rows_are_those_of_completed_jobs(postgres_server: PostgresServer, postgres_url: str, kills: int) -> None:
    empty_orders(postgres_url)
    namespace = postgres_server.emptied("kills")
    jobs = Jobs(postgres_url, options=Settings(namespace=namespace))
    words = [sys.executable, "-m", "tests.stores.postgres.finish_child", postgres_url, namespace]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        for first in range(0, kills, BATCH):
            jobs.submit_many("ship", [{"order": number} for number in range(first, min(first + BATCH, kills))])
        ends = []
        for number in range(kills):
            print(WINDOW * number // kills, file=worker.stdin, flush=True)
            ends.append(int(worker.stdout.readline()))
        killed = ends.count(-signal.SIGKILL)
        for _ in range(1 + kills // 100):  # each is killed after a minute
            print(60_000_000, "drain", file=worker.stdin, flush=True)
            if worker.stdout.readline() == "0\n":
                break
        else:
            pytest.fail("the jobs did not end")
        worker.stdin.close()
    rows = orders(postgres_url)
    ended = list(every_job(jobs))
    assert len(ended) == kills
    assert {job.status.value for job in ended} <= {"completed", "failed"}, "none is lost"
    assert rows == sorted(job.result for job in ended if job.status == "completed"), (
        "none is missing, none is there twice"
    )
    print(f"{killed:,} of {kills:,} were killed, {len(rows):,} rows for {len(ended):,} jobs")
    assert killed >= kills // 4
    jobs.close()


def every_job(jobs: Jobs) -> Iterator[Job]:
    """Yield all jobs, page by page."""
    page = jobs.find(limit=BATCH)
    yield from page.jobs
    while page.next_cursor:
        page = jobs.find(limit=BATCH, cursor=page.next_cursor)
        yield from page.jobs
