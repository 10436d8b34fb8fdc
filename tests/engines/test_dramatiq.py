"""Dramatiq: the suite, on a process with threads."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.engines.conformance import EngineConformance
from tests.engines.conftest import Stage
from tests.services import RedisServer

pytest.importorskip("dramatiq")
pytestmark = pytest.mark.slow

DRAMATIQ = ("-m", "dramatiq", "tests.engines.dramatiq_app", "--processes", "1", "--threads", "{concurrency}")


@pytest.fixture
def stage(make_stage: Callable[..., Stage], broker: RedisServer) -> Stage:
    """Dramatiq on a Redis of its own."""
    return make_stage("tests.engines.dramatiq_app", DRAMATIQ, broker.url)


class TestConformance(EngineConformance):
    """An exception is raised in the thread."""

    stops_deaf_code = "interrupted (exception in its thread)"
