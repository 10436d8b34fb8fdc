"""The conformance suite on the oldest supported version of PostgreSQL, and on the newest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from tests.conformance import test_postgres
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.slow


class Versions(test_postgres.TestPostgresStore):
    """All scenarios but the longest, a comparison with memory that is the same for all versions."""

    __test__ = False
    version: ClassVar[str]
    test_store_agrees_with_memory_store = None  # type: ignore[assignment]

    @pytest.fixture(scope="class")
    @classmethod
    def postgres_server(cls) -> Iterator[PostgresServer]:
        with PostgresServer(service=cls.version) as server:
            yield server


@pytest.mark.service("postgresql-15")
class TestPostgres15(Versions):
    __test__ = True
    version = "postgresql-15"


@pytest.mark.service("postgresql-18")
class TestPostgres18(Versions):
    __test__ = True
    version = "postgresql-18"
