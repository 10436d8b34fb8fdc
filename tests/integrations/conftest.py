"""Workers of task queues as subprocesses, with a private broker and store and short timeouts."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Protocol

import psutil
import pytest

from milepost import Job, Jobs, settings
from tests.chaos.calibration import slowness
from tests.integrations.direct_task_queue import DirectTaskQueue
from tests.integrations.sample_handlers import lines
from tests.redis_server import RedisServer

pytest.register_assert_rewrite("tests.integrations.integration_conformance")

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0
"""Seconds within which a thing must come true: a hang guard, not an aim."""
_numbers = itertools.count(1)


class Broker(Protocol):
    """A broker that a test may kill, start and restart."""

    def kill(self) -> None:
        """End it at once."""

    def start(self) -> object:
        """Start it again, on the same address."""

    def restart(self) -> None:
        """End it in order, and start it."""


class Deployment:
    """An application with a task queue in this process, and its workers in subprocesses."""

    def __init__(self, module: str, command: tuple[str, ...], broker: str, url: str, folder: Path) -> None:
        self.log = folder / "engine.log"
        self.log.touch()
        self.folder = folder
        self._module = module
        self._command = command
        self.environment = {
            "TEST_BROKER": broker,
            "TEST_LOG": str(self.log),
            "TEST_LOST_AFTER": "3600",
            "MILEPOST_URL": url,
            "MILEPOST_NAMESPACE": f"engines{os.getpid()}-{next(_numbers)}",
            "MILEPOST_LEASE": f"{4 * slowness():g}",
            "MILEPOST_SWEEP": "0.3",
            "MILEPOST_HEARTBEAT": "0.05",
            "MILEPOST_GRACE": "1",
            "PYTHONPATH": str(ROOT),
        }
        self.workers: list[subprocess.Popen[bytes]] = []
        self._app: ModuleType | None = None

    # --- this process ---

    @property
    def app(self) -> ModuleType:
        """The application's module, imported in the environment of its workers."""
        if self._app is None:
            os.environ.update(self.environment)
            settings.settings.reload()
            sys.modules.pop(self._module, None)
            self._app = importlib.import_module(self._module)
        return self._app

    @property
    def jobs(self) -> Jobs:
        """The application's jobs."""
        jobs: Jobs = self.app.jobs
        return jobs

    def close(self) -> None:
        """End the workers and the threads of this process."""
        for worker in self.workers:
            self.kill(worker)
        if self._app is not None:
            self.jobs.close()
        for name in self.environment:
            os.environ.pop(name, None)
        settings.settings.reload()

    # --- workers ---

    def start(self, concurrency: int = 2, *more: str) -> subprocess.Popen[bytes]:
        """Start a worker."""
        command = [
            word.format(concurrency=concurrency, broker=self.environment["TEST_BROKER"])
            for word in (*self._command, *more)
        ]
        environment = {**os.environ, **self.environment}
        output = (self.folder / f"worker{len(self.workers)}.out").open("wb")
        worker = subprocess.Popen(
            [sys.executable, *command],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        output.close()
        self.workers.append(worker)
        return worker

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """Kill a worker with all that it has started, at once."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(worker.pid)
            family = [root, *root.children(recursive=True)]
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()  # so that none starts another, or sees another die
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(family[1:], PATIENCE)
        worker.wait(PATIENCE)

    def output(self) -> str:
        """Return the output of the workers, for the text of a failure."""
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in sorted(self.folder.glob("worker*.out")))

    # --- waiting ---

    def lines(self) -> list[str]:
        """Return the lines that the jobs' code has written."""
        return lines(self.log)

    def until(self, true: Callable[[], object], what: str, within: float = PATIENCE) -> None:
        """Wait until a condition is true."""
        deadline = time.monotonic() + within
        while not true():
            assert time.monotonic() < deadline, f"{what}: did not come true\n{self.lines()}\n{self.output()}"
            time.sleep(0.02)

    def wait_for_lines(self, line: str, times: int = 1) -> None:
        """Wait until the jobs' code has written lines that begin so."""
        self.until(lambda: sum(one.startswith(line) for one in self.lines()) >= times, f"{line!r} x {times}")

    def ended(self, job_id: str, within: float = PATIENCE) -> Job:
        """Wait until the job has ended and return it."""

        def has_ended() -> bool:
            job = self.jobs.get_job(job_id)
            return job is not None and job.is_terminal

        self.until(has_ended, f"job {job_id} ends", within)
        job = self.jobs.get_job(job_id)
        assert job is not None
        return job

    def confirmed(self, job_id: str) -> Job:
        """Wait until the stop of the job is confirmed and return it."""

        def is_confirmed() -> bool:
            job = self.jobs.get_job(job_id)
            return job is not None and job.receipt is not None and job.receipt.confirmed is True

        self.until(is_confirmed, f"the stop of {job_id} is confirmed")
        return self.ended(job_id)


@pytest.fixture
def make_deployment(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """Make a deployment: `make_deployment("tests.integrations.celery_app", CELERY, broker_url)`."""
    made: list[Deployment] = []

    def make(module: str, command: tuple[str, ...], broker: str) -> Deployment:
        made.append(Deployment(module, command, broker, redis_url, tmp_path))
        return made[-1]

    yield make
    for deployment in made:
        deployment.close()


@pytest.fixture
def broker(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """Return a broker of the test's own, which keeps nothing over a restart."""
    return start_redis()


@pytest.fixture
def celery_signals() -> Iterator[None]:
    """Disconnect the receivers of the test's Celery applications after it."""
    signals = pytest.importorskip("celery.signals")
    names = ("before_task_publish", "task_received", "task_revoked", "task_failure", "worker_ready", "worker_shutdown",
             "setup_logging")  # fmt: skip
    before = [(getattr(signals, name), list(getattr(signals, name).receivers)) for name in names]
    yield
    for signal, receivers in before:
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


@pytest.fixture(params=["sqlite", "redis"])
def make_jobs(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], tuple[Jobs, DirectTaskQueue]]]:
    """Make applications on each shared store."""
    monkeypatch.setenv("MILEPOST_SWEEP", "0.1")
    if request.param == "redis":
        monkeypatch.setenv("MILEPOST_NAMESPACE", request.getfixturevalue("redis_namespace"))
    made: list[Jobs] = []

    def make() -> tuple[Jobs, DirectTaskQueue]:
        task_queue = DirectTaskQueue()
        made.append(Jobs(request.getfixturevalue(f"{request.param}_url"), task_queue=task_queue))
        return made[-1], task_queue

    yield make
    for jobs in made:
        jobs.close()
