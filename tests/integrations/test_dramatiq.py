"""Dramatiq: the conformance suite, on a process with threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from milepost import Jobs, Run
from tests.integrations.conftest import Deployment
from tests.integrations.integration_conformance import IntegrationConformance
from tests.redis_server import RedisServer
from tests.waiting import PATIENCE, until

dramatiq = pytest.importorskip("dramatiq")
from dramatiq.brokers.stub import StubBroker  # noqa: E402 - after it is known to be installed
from dramatiq.middleware import Middleware  # noqa: E402

from milepost.integrations.dramatiq import DramatiqTaskQueue  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timing]

DRAMATIQ = ("-m", "dramatiq", "tests.integrations.dramatiq_app", "--processes", "1", "--threads", "{concurrency}")


@pytest.fixture
def deployment(make_deployment: Callable[..., Deployment], broker: RedisServer) -> Deployment:
    """Dramatiq on a private Redis."""
    return make_deployment("tests.integrations.dramatiq_app", DRAMATIQ, broker.url)


class TestConformance(IntegrationConformance):
    """An exception is raised in the thread."""

    stops_unresponsive_code = "interrupted (exception in its thread)"


def test_worker_with_a_backlog_is_listed(sqlite_url: str) -> None:
    """Regression: a message that ran before the worker had booted kept it from the list, and from dispatching other jobs.

    Retries then waited for another process of the application.
    """
    handled = threading.Event()

    class SlowBoot(Middleware):
        """Lets a boot take longer than the first message."""

        def after_worker_boot(self, broker: dramatiq.Broker, worker: Any) -> None:
            handled.wait(PATIENCE)

    broker = StubBroker()
    broker.add_middleware(SlowBoot())
    task_queue = DramatiqTaskQueue(broker)
    jobs = Jobs(sqlite_url, task_queue=task_queue)

    @jobs.job("work")
    def work(run: Run) -> None:
        handled.set()

    backlog = jobs.enqueue("work", task_queue="dramatiq")
    task_queue.send(backlog)
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    try:
        assert jobs.wait(backlog, PATIENCE).status == "completed"
        until(jobs.workers)
    finally:
        worker.stop()
        jobs.close()
