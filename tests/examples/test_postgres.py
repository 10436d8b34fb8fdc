"""The examples with their jobs in PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from milepost import Jobs, Settings
from tests.examples import test_examples as examples
from tests.postgres_server import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.service("postgresql"), pytest.mark.timeout(300)]

ALONE = [
    examples.test_plain_script,
    examples.test_upload_service,
    examples.test_background_tasks,
    examples.test_starlette_app,
    examples.test_django_app,
]


@pytest.fixture
def jobs(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """Point the programs that a test starts to PostgreSQL, and return the jobs there, of which there are none."""
    monkeypatch.setenv("MILEPOST_URL", postgres_server.url())
    monkeypatch.setenv("MILEPOST_NAMESPACE", postgres_server.emptied("examples"))
    return Jobs(postgres_server.url(), options=Settings(namespace="examples"))


def statuses(jobs: Jobs) -> set[str]:
    """Return the statuses of all jobs."""
    with closing(jobs):
        return {job.status.value for job in jobs.list_jobs()}


@pytest.mark.parametrize("example", ALONE, ids=lambda example: example.__name__.removeprefix("test_"))
def test_example_of_one_program(example: Callable[[], None], jobs: Jobs) -> None:
    example()
    assert statuses(jobs) == ({"cancelled"} if example is examples.test_starlette_app else {"completed"})


def test_library_service(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples.test_library_service(tmp_path, monkeypatch)
    assert statuses(jobs) == {"completed"}


def test_flask_app_with_server_and_worker(jobs: Jobs) -> None:
    examples.test_flask_app_with_server_and_worker(os.environ["MILEPOST_URL"])
    assert statuses(jobs) == {"completed"}


def test_gunicorn_with_preload(jobs: Jobs, request: pytest.FixtureRequest) -> None:
    examples.test_gunicorn_with_preload(request, "postgres")
    assert statuses(jobs) == {"completed"}


def test_dask_embed(jobs: Jobs) -> None:
    pytest.importorskip("distributed")
    command = [sys.executable, str(examples.EXAMPLES / "dask_embed.py"), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "completed: 200 of 200 texts, 0 futures cancelled\n", done.stderr
    assert statuses(jobs) == {"completed"}
