"""`milepost worker` on a store that is unavailable when it starts."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from milepost import Job, Jobs
from milepost.core.errors import UnknownJobTypeError
from tests.cli.subprocesses import PATIENCE, CommandRunner, RunningCommand, until
from tests.redis_server import RedisServer

pytestmark = pytest.mark.timing


@pytest.fixture
def program(tmp_path: Path) -> Iterator[CommandRunner]:
    """Yield the program, in an empty folder."""
    with CommandRunner(tmp_path) as made:
        yield made


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """Return a Redis of the test's own, which is ended and started on the same port."""
    return start_redis()


def replicas(server: RedisServer, number: int) -> None:
    """Let the server refuse writes while it has fewer replicas."""
    with server.client() as client:
        client.config_set("min-replicas-to-write", str(number))


def wait_for_message(worker: RunningCommand, wanted: str) -> str:
    """Read the log until a message has a text; the line."""
    assert worker.process.stdout is not None
    for line in worker.process.stdout:
        if wanted in line:
            return line
    raise AssertionError(f"it ended: {worker.process.stderr.read() if worker.process.stderr else ''}")


@pytest.mark.parametrize("outage", ["refuses", pytest.param("is unreachable", marks=pytest.mark.slow)])
def test_worker_that_starts_during_outage_waits_and_runs(
    program: CommandRunner, server: RedisServer, outage: str
) -> None:
    """A worker that started while its store was away, or without a replica (NOREPLICAS), exited at once; under systemd it
    then stayed down for good."""
    if outage == "refuses":
        replicas(server, 1)
    else:
        server.kill()
    worker = program.start("worker", "tests.cli.sample_app:jobs", "--url", server.url)
    line = wait_for_message(worker, "NOREPLICAS" if outage == "refuses" else "not reachable")
    assert json.loads(line)["level"] == "warning"
    if outage == "refuses":
        replicas(server, 0)
    else:
        server.start()
    jobs = Jobs(server.url)

    def submitted() -> Job | None:
        try:
            return jobs.submit("count", {"n": 3})
        except UnknownJobTypeError:  # until the worker has said what it serves
            return None

    job: Job = until(submitted)
    assert jobs.wait(job.job_id, timeout=PATIENCE).status == "completed"
    jobs.close()
    worker.signal(signal.SIGTERM)
    assert worker.finish()[0] == 0


def test_worker_reports_outage_and_recovery_once(program: CommandRunner, server: RedisServer) -> None:
    """The log did not report the end of an outage, so operators restarted the worker."""
    worker = program.start("worker", "tests.cli.sample_app:jobs", "--url", server.url, MILEPOST_SWEEP="0.5")
    jobs = Jobs(server.url)
    until(jobs.job_types)
    replicas(server, 1)
    said: list[tuple[str, str]] = []

    def read_lines(number: int) -> None:
        while len(said) < number:
            line = json.loads(wait_for_message(worker, "store "))
            said.append((line["logger"], line["message"].removeprefix(f"worker {jobs.workers()[0].name}: ")))

    read_lines(2)
    replicas(server, 0)
    read_lines(4)
    jobs.close()
    worker.signal(signal.SIGTERM)
    _, rest, _ = worker.finish()
    assert "store unavailable" not in rest
    for logger in ("milepost.heartbeat", "milepost.worker"):
        first, last = [message for name, message in said if name == logger]
        assert first.startswith("store unavailable; running jobs continue: ")
        assert re.fullmatch(r"store available again after \d+ s", last)


def test_sigterm_ends_worker_waiting_for_store(program: CommandRunner, server: RedisServer) -> None:
    """A worker that waits for its store must not ignore the signal of its supervisor."""
    replicas(server, 1)
    worker = program.start("worker", "tests.cli.sample_app:jobs", "--url", server.url)
    wait_for_message(worker, "NOREPLICAS")
    worker.signal(signal.SIGTERM)
    assert worker.finish()[0] == 0


def test_worker_with_wrong_password_ends_at_once(
    program: CommandRunner, start_redis: Callable[..., RedisServer]
) -> None:
    """Waiting does not mend a wrong password: it is one line, at once."""
    server = start_redis(password="right")
    url = server.url_for(None, "wrong")
    assert "refused the user or password" in program.error_line(
        "worker", "tests.cli.sample_app:jobs", "--url", url, code=1
    )
