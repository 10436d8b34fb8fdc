"""RQ: the conformance suite, on a worker pool."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import psutil
import pytest

from tests.integrations.conftest import Deployment
from tests.integrations.integration_conformance import IntegrationConformance
from tests.redis_server import RedisServer

pytest.importorskip("rq")
pytestmark = [pytest.mark.slow, pytest.mark.timing]

RQ = (
    "-m", "rq.cli", "worker-pool", "engines", "--num-workers", "{concurrency}", "--url", "{broker}",
    "--worker-class", "tests.integrations.rq_app.Worker",
)  # fmt: skip


@pytest.fixture
def deployment(make_deployment: Callable[..., Deployment], broker: RedisServer) -> Deployment:
    """RQ on a private Redis."""
    return make_deployment("tests.integrations.rq_app", RQ, broker.url)


class TestConformance(IntegrationConformance):
    """A stop-job command kills the work horse."""

    stops_unresponsive_code = "killed_by_rq"


def test_killed_horse_waiting_for_store_loses_no_message(
    deployment: Deployment, start_redis: Callable[..., RedisServer]
) -> None:
    """The message of a work horse that was killed during an outage of the store was lost, and its job waited for an hour."""
    store = start_redis(appendonly="always")
    deployment.environment["MILEPOST_URL"] = store.url
    job_id = deployment.jobs.submit("noted", {"text": "once"}).job_id
    dispatcher = deployment.jobs.dispatcher
    assert dispatcher is not None
    deployment.until(lambda: not dispatcher.has_unrecorded, "the record says that the message was sent")
    store.kill()
    worker = deployment.start(1)
    pool = psutil.Process(worker.pid)

    def horses() -> list[psutil.Process]:
        """Return the children of the pool's only worker."""
        with suppress(psutil.NoSuchProcess):
            return [horse for one in pool.children() for horse in one.children()]
        return []

    deployment.until(horses, "the message has a work horse")
    horses()[0].kill()
    store.start()
    job = deployment.ended(job_id)
    assert (job.status, job.attempt, job.crashes, deployment.lines()) == ("completed", 1, 0, ["noted once"])
