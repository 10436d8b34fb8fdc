"""The conformance suite on a real PostgreSQL server."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from milepost.stores.postgres import PostgresStore
from milepost.testing.conformance import Conformance
from milepost.testing.conformance.clocks import Outages, SetClocks
from milepost.testing.conformance.expiry import Expiry
from milepost.testing.conformance.harness import API_KINDS, Factory
from milepost.testing.conformance.transition_matrix import PLANS
from tests.conformance.moved_postgres_clock import ServerClock, clocked_store
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service("postgresql")


def _rows_of_matrix() -> list[Any]:
    """Return each plan with each API. `make test` has each plan with one of them in turn, `make test-slow` with the other."""
    rows = itertools.product(enumerate(PLANS), enumerate(API_KINDS))
    return [
        pytest.param(api, plan, marks=[pytest.mark.slow] * ((number + place) % 2))
        for (number, plan), (place, api) in rows
    ]


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

    @pytest.mark.parametrize(("api", "plan"), _rows_of_matrix())
    def test_transition_follows_matrix_or_is_refused(self, api: str, plan: str, request: pytest.FixtureRequest) -> None:
        super().test_transition_follows_matrix_or_is_refused(api, request, plan=plan)


class TestPostgresStoreOnMovedClock(Outages, SetClocks, Expiry):
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
