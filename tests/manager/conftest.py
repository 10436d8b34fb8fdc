"""An empty store of each kind, also of PostgreSQL in the quick tests."""

from __future__ import annotations

import pytest

from milepost.stores.factory import open_store
from milepost.stores.protocol import Store


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("redis", marks=pytest.mark.service("redis-server")),
        pytest.param("postgresql", marks=pytest.mark.service("postgresql")),
    ]
)
def every_store(request: pytest.FixtureRequest) -> Store:
    """Return an empty store of each kind."""
    if request.param == "redis":
        namespace = request.getfixturevalue("redis_namespace")
        return open_store(request.getfixturevalue("redis_url"), namespace=namespace)
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        return open_store(server.url(), namespace=server.emptied("manager"))
    return open_store("memory://" if request.param == "memory" else request.getfixturevalue("sqlite_url"))
