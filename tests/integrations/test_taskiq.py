"""Taskiq: the conformance suite, on one worker process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable

import pytest

from milepost import Jobs, Run
from tests.forking import fork
from tests.integrations.conftest import Deployment
from tests.integrations.integration_conformance import IntegrationConformance
from tests.redis_server import RedisServer
from tests.waiting import PATIENCE

pytest.importorskip("taskiq_redis")
from taskiq import BrokerMessage, InMemoryBroker

from milepost.integrations.taskiq import TaskiqTaskQueue

pytestmark = [pytest.mark.slow, pytest.mark.timing]

TASKIQ = ("-m", "taskiq", "worker", "tests.integrations.taskiq_app:broker", "--workers", "1")


@pytest.fixture
def deployment(make_deployment: Callable[..., Deployment], broker: RedisServer) -> Deployment:
    """Taskiq on a private Redis."""
    return make_deployment("tests.integrations.taskiq_app", TASKIQ, broker.url)


class TestConformance(IntegrationConformance):
    """Taskiq cannot stop unresponsive code."""


def test_closing_application_ends_sending_loop(deployment: Deployment) -> None:
    def sending() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "milepost-taskiq-loop"]

    jobs = deployment.jobs
    for text in ("before", "and after it was closed"):
        assert jobs.submit("noted", {"text": text}).stalled is None
        assert len(sending()) == 1
        jobs.close()
        assert sending() == []
    deployment.start()
    deployment.wait_for_lines("noted", 2)


def test_broker_start_is_retried_at_next_message(sqlite_url: str) -> None:
    started: list[bool] = []
    sent: list[str] = []

    class Broker(InMemoryBroker):
        async def startup(self) -> None:
            started.append(len(started) > 0)
            if not started[-1]:
                raise ConnectionError("no broker yet")
            await super().startup()

        async def kick(self, message: BrokerMessage) -> None:
            assert any(started), "is started first"
            sent.append(message.task_name)

    jobs = Jobs(sqlite_url, task_queue=TaskiqTaskQueue(Broker()))

    @jobs.job("noted")
    def noted(run: Run) -> None:
        """Never run."""

    waiting = jobs.get_job(jobs.submit(noted).job_id)
    assert waiting is not None
    assert waiting.stalled == "taskiq cannot be reached: no broker yet"
    assert jobs.submit(noted).stalled is None
    jobs.close()
    assert started[:2] == [False, True]
    assert sent[:1] == ["milepost.run"]


def test_code_that_raises_cancelled_error_fails_job(sqlite_url: str) -> None:
    jobs = Jobs(sqlite_url, task_queue=TaskiqTaskQueue(InMemoryBroker()))

    @jobs.job("own")
    async def own(run: Run) -> None:
        other = asyncio.create_task(asyncio.Event().wait())
        other.cancel()
        await other

    job = jobs.wait(jobs.submit(own), PATIENCE)
    jobs.close()
    assert (job.status, job.error) == ("failed", "CancelledError")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_process_sends_messages_in_a_loop_of_its_own(sqlite_url: str) -> None:
    """Regression: each submit waited 10 s for the event loop of the parent, and its job was never dispatched."""
    jobs = Jobs(sqlite_url, task_queue=TaskiqTaskQueue(InMemoryBroker()))

    @jobs.job("where")
    def where(run: Run) -> int:
        return os.getpid()

    assert jobs.wait(jobs.submit(where), PATIENCE).result == os.getpid()

    def submit() -> None:
        assert jobs.wait(jobs.submit(where), PATIENCE).result == os.getpid()

    assert fork(submit) == 0
    jobs.close()
