"""Values that the text of an array has to quote, in jobs that are written and read together."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from milepost import AsyncJobs, Jobs, Run, Settings
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service("postgresql")

TEXTS = [
    "plain", "", " ", "NULL", "null", '"', '""', "\\", '\\"', "{}", "{a,b}", "a,b", "'", "é\u2028\U0001f600", "line\nline\ttab\r",
    "\\n", "%s", "$1",
]  # fmt: skip


LABELS = {"quoted": 'a"b\\c,{d}'}


@pytest.fixture
def jobs(postgres_server: PostgresServer) -> Iterator[Jobs]:
    """Yield jobs with a published type "echo"."""
    jobs = Jobs(postgres_server.url(), options=Settings(namespace=postgres_server.emptied("arrays")))

    @jobs.job("echo")
    def echo(run: Run, text: str) -> str:
        return text

    with jobs.run_workers():
        pass
    yield jobs
    jobs.close()


def texts(jobs: Jobs) -> list[str]:
    """Return the texts of all jobs."""
    return sorted(str(job.params["text"]) for job in jobs.list_jobs(limit=100) if job.params)


def test_texts_are_stored_as_they_are(jobs: Jobs) -> None:
    jobs.submit_many("echo", [{"text": text} for text in TEXTS], labels=LABELS)
    assert texts(jobs) == sorted(TEXTS)
    assert jobs.count_jobs(labels=LABELS) == len(TEXTS)


async def test_async_callers_store_texts_as_they_are(jobs: Jobs, postgres_server: PostgresServer) -> None:
    other = AsyncJobs(postgres_server.url(), options=Settings(namespace="arrays"))
    await other.submit_many("echo", [{"text": text} for text in TEXTS])
    await other.close()
    assert texts(jobs) == sorted(TEXTS)


def test_transaction_in_another_encoding_stores_texts_as_they_are(jobs: Jobs, postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.url(), client_encoding="LATIN1") as db:
        jobs.using(db).submit("echo", {"text": "é"})
    assert texts(jobs) == ["é"]
