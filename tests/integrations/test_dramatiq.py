"""Dramatiq: the conformance suite, on a process with threads."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integrations.conftest import Deployment
from tests.integrations.integration_conformance import IntegrationConformance
from tests.redis_server import RedisServer

pytest.importorskip("dramatiq")
pytestmark = [pytest.mark.slow, pytest.mark.timing]

DRAMATIQ = ("-m", "dramatiq", "tests.integrations.dramatiq_app", "--processes", "1", "--threads", "{concurrency}")


@pytest.fixture
def deployment(make_deployment: Callable[..., Deployment], broker: RedisServer) -> Deployment:
    """Dramatiq on a private Redis."""
    return make_deployment("tests.integrations.dramatiq_app", DRAMATIQ, broker.url)


class TestConformance(IntegrationConformance):
    """An exception is raised in the thread."""

    stops_unresponsive_code = "interrupted (exception in its thread)"
