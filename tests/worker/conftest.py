"""An application on each kind of store, with short times, and workers that end with their test."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from milepost import Jobs, Settings
from tests.chaos.calibration import slowness
from tests.waiting import until
from tests.worker.telling import Signals

ROOT = Path(__file__).resolve().parents[2]
MakeJobs = Callable[..., Jobs]
_numbers = itertools.count(1)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty store of each kind."""
    kind: str = request.param
    if kind == "memory":
        return "memory://"
    address: str = request.getfixturevalue(f"{kind}_url")
    return address


@pytest.fixture(params=["sqlite", "redis"])
def shared_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty store that processes can share."""
    address: str = request.getfixturevalue(f"{request.param}_url")
    return address


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test has used."""
    return f"worker{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def make_jobs(url: str, namespace: str) -> Iterator[MakeJobs]:
    """Make an application on the store of this test: `make_jobs(lease=0.5)`."""
    made: list[Jobs] = []

    def make(**options: Any) -> Jobs:
        jobs = Jobs(url, options=Settings(**{"namespace": namespace, "grace": 0.5, "pulse": 0.05, **options}))
        made.append(jobs)
        return jobs

    yield make
    for jobs in made:
        jobs.close()


@pytest.fixture
def jobs(make_jobs: MakeJobs) -> Jobs:
    """An application without handlers yet."""
    return make_jobs()


class Workers:
    """Worker processes of one application module, on one store. Leases last a second, times the slowness of the machine."""

    def __init__(self, url: str, namespace: str, log: Path) -> None:
        self.lease = 1.0 * slowness()
        self.environment = {
            **os.environ,
            "MILEPOST_URL": url,
            "MILEPOST_NAMESPACE": namespace,
            "MILEPOST_LEASE": str(self.lease),
            "MILEPOST_SWEEP": "0.2",
            "MILEPOST_PULSE": "0.05",
            "MILEPOST_GRACE": "1.0",
            "WORKER_LOG": str(log),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        self.url = url
        self.namespace = namespace
        self.log = log
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, concurrency: int = 4, workers: int = 1, **environment: str) -> subprocess.Popen[bytes]:
        """Start a process with a worker, or with several that only a kill ends."""
        run = f"raise SystemExit(run_worker(jobs, concurrency={concurrency}))"
        if workers > 1:
            run = f"jobs.running({workers}, concurrency={concurrency}).__enter__(); import signal; signal.pause()"
        program = (
            "import logging; logging.basicConfig(level=20); from milepost.worker import run_worker; "
            f"from tests.worker.application import jobs; {run}"
        )
        process = subprocess.Popen([sys.executable, "-c", program], env={**self.environment, **environment}, cwd=ROOT)
        self.processes.append(process)
        return process

    def noted(self, word: str, count: int = 1) -> list[str]:
        """Wait for so many lines of handlers that begin with a word; all of them."""

        def found() -> list[str]:
            return [line for line in self.log.read_text().splitlines() if line.startswith(word)]

        until(lambda: len(found()) >= count)
        return found()

    def jobs(self) -> Jobs:
        """The same store, seen from this process; this process does not sweep for the workers."""
        times = {"lease": self.lease, "sweep": 0.2, "pulse": 0.05, "grace": 1.0}
        return Jobs(self.url, options=Settings(namespace=self.namespace, **times))


@pytest.fixture
def workers(shared_url: str, namespace: str, tmp_path: Path) -> Iterator[Workers]:
    """Worker processes on a store that they share; they are killed with the test."""
    made = Workers(shared_url, namespace, tmp_path / "workers.log")
    made.log.touch()
    yield made
    for process in made.processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


@pytest.fixture
def signals() -> Iterator[Signals]:
    """Signals; a handler that still waits is let go with the test."""
    made = Signals()
    yield made
    made.let_go.set()
