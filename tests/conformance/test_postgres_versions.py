"""The conformance suite on the oldest supported version of PostgreSQL, and on the newest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance import test_postgres
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.slow


class Versions(test_postgres.TestPostgresStore):
    """All scenarios but the longest, a comparison with memory that is the same for all versions."""

    __test__ = False
    test_store_agrees_with_memory_store = None  # type: ignore[assignment]


@pytest.mark.service("postgresql-15")
class TestPostgres15(Versions):
    __test__ = True

    @pytest.fixture(scope="class")
    @classmethod
    def postgres_server(cls) -> Iterator[PostgresServer]:
        with PostgresServer(service="postgresql-15") as server:
            yield server


@pytest.mark.service("postgresql-18")
class TestPostgres18(Versions):
    __test__ = True

    @pytest.fixture(scope="class")
    @classmethod
    def postgres_server(cls) -> Iterator[PostgresServer]:
        with PostgresServer(service="postgresql-18") as server:
            yield server
