"""Jobs on PostgreSQL beside a table of orders, and a proxy of the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from milepost import Jobs, Settings
from tests.chaos.proxy import Proxy
from tests.postgres_server import PostgresServer
from tests.stores.postgres.orders import empty_orders


@pytest.fixture
def jobs(postgres_server: PostgresServer, postgres_url: str) -> Iterator[Jobs]:
    """Yield jobs, and an empty table of orders."""
    empty_orders(postgres_url)
    jobs = Jobs(postgres_url, options=Settings(namespace=postgres_server.emptied("finish")))
    yield jobs
    jobs.close()


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[Proxy]:
    """Yield a proxy of the server, which can lose the answer to a COMMIT."""
    with Proxy(postgres_server.port) as proxy:
        yield proxy


def through(proxy: Proxy) -> str:
    """Return the URL of the server's database, through the proxy."""
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
