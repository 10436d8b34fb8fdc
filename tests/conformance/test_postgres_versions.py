"""The conformance suite on the oldest supported version of PostgreSQL, and on the newest."""

from __future__ import annotations

import pytest

from tests.conformance import test_postgres
from tests.postgres_server import OTHER_POSTGRES


@pytest.mark.usefixtures("postgres_service")
@pytest.mark.parametrize("postgres_service", OTHER_POSTGRES, indirect=True, scope="session")
class TestPostgresVersions(test_postgres.TestPostgresStore):
    """All scenarios but the longest, a comparison with memory that is the same for all versions."""

    test_store_agrees_with_memory_store = None  # type: ignore[assignment]
