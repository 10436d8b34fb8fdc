"""SIGKILL of workers between "the row of the user is written" and "commit": rows are those of completed jobs, each once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys

import psycopg
import pytest

from milepost import Jobs, Settings
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service("postgresql")

WINDOW = 30_000
"""Microseconds after the row was written within which a worker is killed, or has ended."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_rows_are_those_of_completed_jobs(postgres_server: PostgresServer, postgres_url: str, kills: int) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as db:
        db.execute("CREATE TABLE IF NOT EXISTS orders (number int)")
        db.execute("TRUNCATE orders")
        namespace = postgres_server.emptied("kills")
        jobs = Jobs(postgres_url, options=Settings(namespace=namespace))
        words = [sys.executable, "-m", "tests.stores.postgres.finish_child", postgres_url, namespace]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdin is not None
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            jobs.submit_many("ship", [{"order": number} for number in range(kills)])
            ends = []
            for _ in range(kills):
                print(random.randrange(WINDOW), file=worker.stdin, flush=True)
                ends.append(int(worker.stdout.readline()))
            killed = ends.count(-signal.SIGKILL)
            print(60_000_000, "drain", file=worker.stdin, flush=True)
            assert worker.stdout.readline() == "0\n"
            worker.stdin.close()
        rows = [number for (number,) in db.execute("SELECT number FROM orders ORDER BY number")]
    ended = jobs.list_jobs(limit=kills)
    assert {job.status.value for job in ended} <= {"completed", "failed"}, "none is lost"
    assert rows == sorted(job.result for job in ended if job.status == "completed"), (
        "none is missing, none is there twice"
    )
    assert killed > kills / 4
    jobs.close()
