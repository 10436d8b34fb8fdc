"""Dask: the conformance suite, on one worker process with a nanny."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from milepost.integrations.thread_interrupt import INTERRUPTED
from tests.integrations.cluster_head import ClusterHead
from tests.integrations.conftest import Deployment
from tests.integrations.integration_conformance import IntegrationConformance
from tests.services import free_port

pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.timing]

PORT = free_port()
SCHEDULER = ("-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(PORT), "--no-dashboard")
WORKER = (
    "-m", "distributed.cli.dask_worker", "{broker}", "--nworkers", "1", "--nthreads", "{concurrency}", "--host", "127.0.0.1",
    "--no-dashboard", "--memory-limit", "0", "--preload", "milepost.integrations.dask", "tests.integrations.dask_app:jobs",
)  # fmt: skip


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ClusterHead]:
    """A Dask scheduler of the test's own."""
    head = ClusterHead(SCHEDULER, PORT, tmp_path / "scheduler.out")
    head.start()
    yield head
    head.kill()


@pytest.fixture
def deployment(make_deployment: Callable[..., Deployment], broker: ClusterHead) -> Deployment:
    """Dask on a private scheduler."""
    return make_deployment("tests.integrations.dask_app", WORKER, f"tcp://127.0.0.1:{PORT}")


class TestConformance(IntegrationConformance):
    """Dask runs jobs in threads of its workers."""

    stops_unresponsive_code = INTERRUPTED
    workers_end_with_broker = True
