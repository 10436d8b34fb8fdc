"""Taskiq: the suite, on one of its worker processes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from milepost import Jobs, Run
from tests.engines.conformance import EngineConformance
from tests.engines.conftest import Stage
from tests.services import RedisServer

pytest.importorskip("taskiq_redis")
from taskiq import BrokerMessage, InMemoryBroker

from milepost.engines.taskiq import TaskiqEngine

pytestmark = pytest.mark.slow

TASKIQ = ("-m", "taskiq", "worker", "tests.engines.taskiq_app:broker", "--workers", "1")


@pytest.fixture
def stage(make_stage: Callable[..., Stage], broker: RedisServer) -> Stage:
    """Taskiq on a Redis of its own."""
    return make_stage("tests.engines.taskiq_app", TASKIQ, broker.url)


class TestConformance(EngineConformance):
    """It has no means against code that never looks."""


def test_an_application_that_closes_ends_the_loop_in_which_it_has_sent(stage: Stage) -> None:
    def sending() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "milepost-taskiq-loop"]

    jobs = stage.jobs
    for text in ("before", "and after it was closed"):
        assert jobs.submit("noted", {"text": text}).stalled is None
        assert len(sending()) == 1
        jobs.close()
        assert sending() == []
    stage.start()
    stage.says("noted", 2)


def test_a_broker_that_could_not_be_started_is_started_at_the_next_message(sqlite_url: str) -> None:
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

    jobs = Jobs(sqlite_url, engine=TaskiqEngine(Broker()))

    @jobs.job("noted")
    def noted(run: Run) -> None:
        """Run by nobody."""

    waiting = jobs.get_job(jobs.submit(noted).job_id)
    assert waiting is not None
    assert waiting.stalled == "taskiq cannot be reached: no broker yet"
    assert jobs.submit(noted).stalled is None
    jobs.close()
    assert started[:2] == [False, True]
    assert sent[:1] == ["milepost.run"]
