"""The examples of task queues: a Celery application with two lines changed, a corpus embedded on Dask and on Ray."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from milepost import JobManager, Jobs
from tests.examples.test_examples import EXAMPLES, started
from tests.redis_server import RedisServer
from tests.services import free_port
from tests.waiting import until

PATIENCE = 120.0
MILEPOST = ("-c", "import sys; from milepost.cli import main; sys.exit(main())")


@contextmanager
def run_beside(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process in the folder of the examples; SIGTERM ends it."""
    process = subprocess.Popen([sys.executable, *command], cwd=EXAMPLES, env={**os.environ, **environment})
    try:
        yield process
        process.terminate()
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()


def test_celery_example_is_tracked(broker: RedisServer, sqlite_url: str) -> None:
    """Its task is in what the dashboard lists beside a job of our own worker, and so are both workers."""
    pytest.importorskip("celery")
    environment = {"MILEPOST_URL": sqlite_url, "CELERY_BROKER": broker.url}
    celery = ("-m", "celery", "-A", "celery_app", "worker", "--concurrency=1", "--without-gossip", "--without-mingle")
    port = free_port()
    with (
        started(port, sys.executable, *MILEPOST, "serve", "--port", str(port), **environment) as client,
        run_beside(*celery, **environment),
        run_beside(*MILEPOST, "worker", "flask_app:jobs", **environment),
    ):
        send = "from celery_app import greet, thumbnails; print(thumbnails.delay('summer', 3).get(), greet.delay('Ada').get())"
        done = subprocess.run(
            [sys.executable, "-c", send],
            cwd=EXAMPLES,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == "{'album': 'summer', 'pictures': 3} Hello Ada\n", done.stderr
        with closing(Jobs(sqlite_url)) as jobs:
            until(lambda: "words" in [known.name for known in jobs.job_types()], PATIENCE)
            jobs.submit("words", {"text": "one two"})

        def shown() -> dict[str, str]:
            return {job["job_type"]: job["status"] for job in client.get("/api/jobs").json()["jobs"]}

        until(lambda: set(shown().values()) == {"completed"}, PATIENCE)
        assert set(shown()) == {"celery_app.thumbnails", "words"}, (
            "and the task without the decorator is not among them"
        )
        until(lambda: len(client.get("/api/workers").json()["workers"]) == 2, PATIENCE)


def test_celery_example_changes_two_lines() -> None:
    """The import and the decorator; without them it is the application that it was."""
    source = (EXAMPLES / "celery_app.py").read_text()
    ours = [line for line in source.splitlines() if "tracked" in line]
    assert ours == ["from milepost.integrations.celery import tracked", "@tracked"]
    ast.parse("\n".join(line for line in source.splitlines() if line not in ours))


EMBEDDINGS = [
    pytest.param("dask_embed.py", "distributed", id="dask"),
    pytest.param("ray_embed.py", "ray", id="ray"),
]
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("example", "package"), EMBEDDINGS)
def test_corpus_is_embedded_on_local_cluster(example: str, package: str, sqlite_url: str) -> None:
    pytest.importorskip(package)
    environment = {**os.environ, **QUIET, "MILEPOST_URL": sqlite_url}
    command = [sys.executable, str(EXAMPLES / example), "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "completed: 200 of 200 texts, 0 futures cancelled\n", done.stderr
    with closing(JobManager(sqlite_url)) as manager:
        (job,) = manager.list_jobs()
    assert (job.job_type, job.status, job.progress, job.result) == ("embedding", "completed", 1.0, {"texts": 200})
    assert [(stage.done, stage.total, stage.unit) for stage in job.stages] == [(200, 200, "text")]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("example", "package"), EMBEDDINGS)
def test_cancel_reaches_futures(example: str, package: str, sqlite_url: str) -> None:
    """Two hundred of a second each: most of them never begin."""
    pytest.importorskip(package)
    environment = {**os.environ, **QUIET, "MILEPOST_URL": sqlite_url}
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / example), "1"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        with closing(JobManager(sqlite_url)) as manager:
            (job,) = until(lambda: manager.list_jobs(status="running"), PATIENCE)
            until(lambda: (now := manager.get_job(job.job_id)) is not None and now.progress > 0, PATIENCE)
            manager.cancel_job(job.job_id, by="ana")
            said, _ = process.communicate(timeout=PATIENCE)
            ended = manager.get_job(job.job_id)
    finally:
        process.kill()
        process.communicate()
    words = said.split()
    assert words[0] == "cancelled:", said
    done, cancelled = int(words[1]), int(words[5])
    assert done >= 1
    assert 100 < cancelled < 200
    assert ended is not None
    assert ended.receipt is not None
    assert (ended.status, ended.receipt.how, ended.receipt.confirmed) == ("cancelled", "cooperative", True)
