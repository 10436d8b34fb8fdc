"""Fixtures: worker processes of one application on a shared store, ended with their test."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from milepost import Jobs
from tests.worker.conftest import ROOT, Workers

_numbers = itertools.count(1)
MakeWorkers = Callable[..., Workers]


def start_app(workers: Workers, app: str) -> subprocess.Popen[bytes]:
    """Start a worker process of another application module."""
    program = f"from milepost.worker import run_worker; from {app} import jobs; raise SystemExit(run_worker(jobs))"
    process = subprocess.Popen([sys.executable, "-c", program], env=workers.environment, cwd=ROOT)
    workers.processes.append(process)
    return process


@pytest.fixture
def make_workers(tmp_path: Path) -> Iterator[MakeWorkers]:
    """Yield `make_workers(url, lease)`: worker processes whose leases are `lease` seconds times the slowness of the machine."""
    with ExitStack() as ends:

        def make(url: str, lease: float = 2.0) -> Workers:
            made = Workers(url, f"chaos{os.getpid()}-{next(_numbers)}", tmp_path / "workers.log", lease)
            made.log.touch()
            ends.callback(end, made)
            return made

        yield make


def end(workers: Workers) -> None:
    """End the processes that a test started."""
    for process in workers.processes:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("redis", marks=pytest.mark.service("redis-server")),
        pytest.param("postgres", marks=[pytest.mark.slow, pytest.mark.service("postgresql")]),
    ]
)
def workers(request: pytest.FixtureRequest, make_workers: MakeWorkers) -> Workers:
    """Return workers on each store that processes can share."""
    return make_workers(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def jobs(workers: Workers) -> Iterator[Jobs]:
    """Yield the store of the workers, opened in this process."""
    with closing(workers.jobs()) as jobs:
        yield jobs
