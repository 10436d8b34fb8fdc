"""RQ: the suite, on a pool of its workers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.engines.conformance import EngineConformance
from tests.engines.conftest import Stage
from tests.services import RedisServer

pytest.importorskip("rq")
pytestmark = pytest.mark.slow

RQ = (
    "-m", "rq.cli", "worker-pool", "engines", "--num-workers", "{concurrency}", "--url", "{broker}",
    "--worker-class", "tests.engines.rq_app.Worker",
)  # fmt: skip


@pytest.fixture
def stage(make_stage: Callable[..., Stage], broker: RedisServer) -> Stage:
    """RQ on a Redis of its own."""
    return make_stage("tests.engines.rq_app", RQ, broker.url)


class TestConformance(EngineConformance):
    """A stop-job command kills the work horse."""

    stops_deaf_code = "killed (RQ stop-job)"
