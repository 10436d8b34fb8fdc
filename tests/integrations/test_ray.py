"""Ray: the conformance suite, on a head without a place for tasks and one worker node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from milepost.integrations.thread_interrupt import INTERRUPTED
from tests.integrations.cluster_head import ClusterHead
from tests.integrations.conftest import ROOT, Deployment
from tests.integrations.integration_conformance import CoreConformance, IntegrationConformance
from tests.services import free_port

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timing]

PORT, CLIENT_PORT = free_port(), free_port()
RAY = ("-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", "--object-store-memory", "80000000")
HEAD = (*RAY, "--head", "--node-ip-address", "127.0.0.1", "--port", str(PORT), "--ray-client-server-port", str(CLIENT_PORT),
        "--num-cpus", "0", "--include-dashboard", "false", "--temp-dir")  # fmt: skip
NODE = (*RAY, "--address", f"127.0.0.1:{PORT}", "--node-ip-address", "127.0.0.1", "--num-cpus", "{concurrency}")


@pytest.fixture(scope="module")
def head() -> Iterator[ClusterHead]:
    """A Ray head of the module's own.

    Its folder has a short path: Ray adds 75 characters to it for a socket, whose path may have 107.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    head = ClusterHead((*HEAD, str(folder)), CLIENT_PORT, folder / "head.out")
    try:
        head.start()
        yield head
    finally:
        head.kill()
        shutil.rmtree(folder)


@pytest.fixture
def broker(head: ClusterHead) -> Iterator[ClusterHead]:
    """The head, started again if the test killed it."""
    yield head
    if not head.is_running:
        head.start()


@pytest.fixture
def deployment(make_deployment: Callable[..., Deployment], broker: ClusterHead) -> Deployment:
    """Ray on a private cluster."""
    return make_deployment("tests.integrations.ray_app", NODE, f"ray://127.0.0.1:{CLIENT_PORT}")


class TestConformance(CoreConformance):
    """Ray runs each job in a process. Its clusters start slowly, so the rest of the suite runs every night."""

    stops_unresponsive_code = INTERRUPTED
    workers_end_with_broker = True
    lists_running_jobs = False


@pytest.mark.nightly
class TestMore(IntegrationConformance):
    """All scenarios."""

    stops_unresponsive_code = INTERRUPTED
    workers_end_with_broker = True
    lists_running_jobs = False

    def test_undispatched_job_is_dispatched_later(self, deployment: Deployment) -> None:
        """The cluster learns of the application from its first message, or from this command."""
        command = [sys.executable, "-m", "milepost.integrations.ray", "tests.integrations.ray_app:jobs"]
        done = subprocess.run(
            command, env={**os.environ, **deployment.environment}, cwd=ROOT, capture_output=True, check=False
        )
        assert done.stdout == b"the sender of tests.integrations.ray_app:jobs has started\n", done.stderr
        super().test_undispatched_job_is_dispatched_later(deployment)


def test_code_in_c_is_killed(deployment: Deployment) -> None:
    deployment.start(1)
    job = deployment.jobs.submit("asleep")
    deployment.wait_for_lines("asleep")
    process = int(deployment.lines()[-1].split()[1])
    deployment.jobs.cancel_job(job.job_id)
    deployment.until(lambda: not psutil.pid_exists(process), "the process is killed")
    assert deployment.ended(job.job_id).status == "cancelled"
    assert deployment.ended(deployment.jobs.submit("noted").job_id).status == "completed", "the cluster continues"


def test_killed_sender_is_replaced_at_the_next_submit(deployment: Deployment) -> None:
    deployment.start(1)
    assert deployment.ended(deployment.jobs.submit("noted").job_id).status == "completed"
    name = f"{deployment.jobs.settings.namespace} tests.integrations.ray_app:jobs"
    ray.kill(ray.get_actor(name, namespace="milepost"))
    job = deployment.jobs.submit("noted")
    assert deployment.jobs.get_job(job.job_id).stalled is None
    assert deployment.ended(job.job_id).status == "completed"
    assert ray.is_initialized(), "other work over the connection continues"
