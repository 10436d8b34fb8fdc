"""Celery on RabbitMQ: the broker-dependent part of the conformance suite. RabbitMQ keeps messages over a restart and
delivers unacknowledged ones again when a connection ends, so it has no visibility timeout."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.integrations.conftest import Deployment
from tests.integrations.integration_conformance import IntegrationConformance
from tests.integrations.rabbitmq import RabbitServer
from tests.integrations.test_celery import CELERY

pytest.importorskip("celery")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.service("rabbitmq-server"),
    pytest.mark.timeout(300),
    pytest.mark.timing,
    pytest.mark.usefixtures("celery_signals"),
]


@pytest.fixture(scope="module")
def node() -> Iterator[RabbitServer]:
    """Yield one node for all tests, because its start takes seconds."""
    with RabbitServer() as server:
        yield server


@pytest.fixture
def broker(node: RabbitServer) -> RabbitServer:
    """Return the running node, whatever an earlier test has done to it."""
    if not node.is_running:
        node.start()
    return node


@pytest.fixture
def deployment(make_deployment: Callable[..., Deployment], broker: RabbitServer) -> Deployment:
    """Celery on a private queue."""
    made = make_deployment("tests.integrations.celery_app", CELERY, broker.url)
    made.environment["TEST_QUEUE"] = made.environment["MILEPOST_NAMESPACE"]
    return made


class TestConformance:
    """Part of the suite."""

    stops_unresponsive_code = "terminated (Celery revoke, SIGTERM)"
    workers_end_with_broker = False
    test_life = IntegrationConformance.test_submitted_job_runs_with_progress_and_result
    test_retries = IntegrationConformance.test_retries_are_milepost_only
    test_cancel_waiting = IntegrationConformance.test_job_cancelled_while_pending_never_starts
    test_cancel_running = IntegrationConformance.test_cancel_stops_running_code_with_receipt
    test_deaf_code = IntegrationConformance.test_unresponsive_code_is_killed_or_reported
    test_killed_worker = IntegrationConformance.test_job_and_progress_survive_worker_kill
    test_delivered_twice = IntegrationConformance.test_duplicate_message_runs_once
    test_broker_down = IntegrationConformance.test_submit_during_broker_outage_runs_later
    test_broker_restart = IntegrationConformance.test_broker_restart_keeps_running_jobs
