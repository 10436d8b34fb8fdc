"""Taskiq: the suite, on one of its worker processes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.engines.conformance import EngineConformance
from tests.engines.conftest import Stage
from tests.services import RedisServer

pytest.importorskip("taskiq_redis")
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
