"""Fixtures: an application on each kind of store, with short intervals, and workers that end with their test."""

from __future__ import annotations

import contextlib
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
from tests.worker.job_assertions import Signals

ROOT = Path(__file__).resolve().parents[2]
MakeJobs = Callable[..., Jobs]


ON_POSTGRES = pytest.param("postgres", marks=[pytest.mark.slow, pytest.mark.service("postgresql")])


@pytest.fixture(params=["sqlite", "redis", ON_POSTGRES])
def shared_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty store that processes can share."""
    address: str = request.getfixturevalue(f"{request.param}_url")
    return address


@pytest.fixture
def make_jobs(url: str, namespace: str) -> Iterator[MakeJobs]:
    """Return a function that makes an application on the store of this test: `make_jobs(lease=0.5)`."""
    made: list[Jobs] = []

    def make(**options: Any) -> Jobs:
        jobs = Jobs(url, options=Settings(**{"namespace": namespace, "grace": 0.5, "heartbeat": 0.05, **options}))
        made.append(jobs)
        return jobs

    yield make
    for jobs in made:
        jobs.close()


@pytest.fixture
def jobs(make_jobs: MakeJobs) -> Jobs:
    """Yield an application without handlers."""
    return make_jobs()


class Workers:
    """Worker processes of one application module, on one store. A lease is `lease` seconds times the slowness of the machine."""

    def __init__(self, url: str, namespace: str, log: Path, lease: float = 2.0) -> None:
        self.lease = lease * slowness()
        self.environment = {
            **os.environ,
            "MILEPOST_URL": url,
            "MILEPOST_NAMESPACE": namespace,
            "MILEPOST_LEASE": str(self.lease),
            "MILEPOST_SWEEP": "0.2",
            "MILEPOST_HEARTBEAT": "0.05",
            "MILEPOST_GRACE": "1.0",
            "WORKER_LOG": str(log),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        self.url = url
        self.namespace = namespace
        self.log = log
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, concurrency: int = 4, workers: int = 1, module: str = "tests.worker.application", **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a process with one worker, or with several that only a kill ends."""
        run = f"raise SystemExit(run_worker(jobs, concurrency={concurrency}))"
        if workers > 1:
            run = f"jobs.run_workers({workers}, concurrency={concurrency}).__enter__(); import signal; signal.pause()"
        program = (
            "import logging; logging.basicConfig(level=20); from milepost.worker import run_worker; "
            f"from {module} import jobs; {run}"
        )
        return self.start_program(program, **environment)

    def start_program(self, program: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a Python process on the store."""
        process = subprocess.Popen([sys.executable, "-c", program], env={**self.environment, **environment}, cwd=ROOT)
        self.processes.append(process)
        return process

    def noted(self, word: str, count: int = 1) -> list[str]:
        """Wait for this many lines of handlers that start with a word; return them."""

        def found() -> list[str]:
            return [line for line in self.log.read_text().splitlines() if line.startswith(word)]

        until(lambda: len(found()) >= count)
        return found()

    def jobs(self) -> Jobs:
        """Return the same store in this process, which does not sweep for the workers."""
        times = {"lease": self.lease, "sweep": 0.2, "heartbeat": 0.05, "grace": 1.0}
        return Jobs(self.url, options=Settings(namespace=self.namespace, **times))


@pytest.fixture
def workers(shared_url: str, namespace: str, tmp_path: Path) -> Iterator[Workers]:
    """Yield worker processes on a shared store; they are killed with the test."""
    made = Workers(shared_url, namespace, tmp_path / "workers.log")
    made.log.touch()
    yield made
    for process in made.processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


@pytest.fixture
def signals() -> Iterator[Signals]:
    """Yield Signals, and release a waiting handler at the end of the test."""
    made = Signals()
    yield made
    made.let_go.set()
