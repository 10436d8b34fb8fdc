"""Celery on RabbitMQ: what of the suite the broker has a part in. It keeps messages over a restart, and sends those again
that nobody acknowledged when a connection ends, so there is no visibility timeout to be cured of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.engines.conformance import EngineConformance
from tests.engines.conftest import Stage
from tests.engines.rabbitmq import RabbitServer
from tests.engines.test_celery import CELERY, _fresh_signals

pytest.importorskip("celery")
pytestmark = [pytest.mark.slow, pytest.mark.service("rabbitmq-server"), pytest.mark.timeout(300)]

__all__ = ["_fresh_signals"]


@pytest.fixture(scope="module")
def node() -> Iterator[RabbitServer]:
    """One node for all: its start takes seconds."""
    with RabbitServer() as server:
        yield server


@pytest.fixture
def broker(node: RabbitServer) -> RabbitServer:
    """The node, up, whatever the test before has done to it."""
    if not node.is_running:
        node.start()
    return node


@pytest.fixture
def stage(make_stage: Callable[..., Stage], broker: RabbitServer) -> Stage:
    """Celery on a queue of its own."""
    made = make_stage("tests.engines.celery_app", CELERY, broker.url)
    made.environment["ENGINE_QUEUE"] = made.environment["MILEPOST_NAMESPACE"]
    return made


class TestConformance:
    """Part of the suite."""

    stops_deaf_code = "terminated (Celery revoke, SIGTERM)"
    test_life = EngineConformance.test_a_submitted_job_runs_there_with_progress_and_a_result
    test_retries = EngineConformance.test_retries_are_ours_and_never_the_engines_too
    test_cancel_waiting = EngineConformance.test_a_job_that_is_cancelled_while_it_waits_never_starts
    test_cancel_running = EngineConformance.test_a_cancel_reaches_running_code_and_leaves_a_receipt
    test_deaf_code = EngineConformance.test_code_that_never_looks_is_stopped_by_the_engine_or_said_to_go_on
    test_killed_worker = EngineConformance.test_a_killed_worker_costs_neither_the_job_nor_its_progress
    test_delivered_twice = EngineConformance.test_what_the_engine_delivers_twice_runs_once
    test_broker_down = EngineConformance.test_a_submit_while_the_broker_is_down_is_kept
    test_broker_restart = EngineConformance.test_a_restart_of_the_broker_disturbs_no_running_job
