"""The conformance suite on a real PostgreSQL server."""

from __future__ import annotations

import itertools

import pytest

from milepost.stores.postgres import PostgresStore
from milepost.testing.conformance import Conformance
from milepost.testing.conformance.clocks import Outages, SetClocks
from milepost.testing.conformance.harness import API_KINDS, Factory
from tests.conformance.moved_postgres_clock import ServerClock, clocked_store
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service("postgresql")


class TestPostgresStore(Conformance):
    @pytest.fixture
    def blocking(self, postgres_server: PostgresServer) -> Factory:
        return _factory(postgres_server, blocking=True)

    @pytest.fixture
    def asynchronous(self, postgres_server: PostgresServer) -> Factory:
        return _factory(postgres_server, blocking=False)

    @pytest.mark.slow
    @pytest.mark.parametrize("api", API_KINDS)
    def test_store_agrees_with_memory_store(self, api: str, request: pytest.FixtureRequest) -> None:
        super().test_store_agrees_with_memory_store(api, request)


class TestPostgresStoreOnMovedClock(Outages, SetClocks):
    @pytest.fixture
    def clock(self, postgres_server: PostgresServer) -> ServerClock:
        return ServerClock(postgres_server, "moved")

    @pytest.fixture
    def blocking(self, clock: ServerClock) -> Factory:
        return lambda: clocked_store(clock, blocking=True)

    @pytest.fixture
    def asynchronous(self, clock: ServerClock) -> Factory:
        return lambda: clocked_store(clock, blocking=False)


def _factory(server: PostgresServer, *, blocking: bool) -> Factory:
    numbers = itertools.count(1)
    return lambda: PostgresStore(
        server.url(), namespace=server.emptied(f"conformance{next(numbers)}"), blocking=blocking
    )
