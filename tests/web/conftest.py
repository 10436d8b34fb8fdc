"""Fixtures of the web tests: an application in this process on each kind of store, and its client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager, AsyncJobs, Run
from milepost.settings import Settings
from milepost.web import auth, create_app
from milepost.web.context import WebContext
from tests.postgres_server import PostgresServer
from tests.web.server import Server

STORES = ["memory", "sqlite", "redis"]
ON_POSTGRES = pytest.param("postgres", marks=[pytest.mark.slow, pytest.mark.service("postgresql")])


def store_address(kind: str, request: pytest.FixtureRequest) -> tuple[str, Settings]:
    """Return the URL of an empty store of a kind, and its settings."""
    if kind == "memory":
        return "memory://", Settings()
    if kind == "sqlite":
        pytest.importorskip("milepost.stores.sqlite")
        return request.getfixturevalue("sqlite_url"), Settings()
    if kind == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        return server.url(), Settings(namespace=server.emptied("web"))
    pytest.importorskip("milepost.stores.redis")
    return request.getfixturevalue("redis_url"), Settings(namespace=request.getfixturevalue("redis_namespace"))


@pytest.fixture(params=[*STORES, ON_POSTGRES])
async def manager(request: pytest.FixtureRequest) -> AsyncIterator[AsyncJobManager]:
    """Return a manager on each kind of store."""
    url, options = store_address(request.param, request)
    manager = AsyncJobManager(url, options=options)
    yield manager
    await manager.close()


@pytest.fixture(params=[*STORES, ON_POSTGRES])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Run a server on each kind of store."""
    url, options = store_address(request.param, request)
    with Server(url, MILEPOST_NAMESPACE=options.namespace) as server:
        yield server


@pytest.fixture
async def memory() -> AsyncIterator[AsyncJobManager]:
    """Return a manager on a store in memory."""
    manager = AsyncJobManager("memory://")
    yield manager
    await manager.close()


def client_of(jobs: Any, scheme: Any = None, **options: Any) -> httpx.AsyncClient:
    """Return a client of an application for these jobs."""
    app = create_app(jobs, auth=scheme if scheme is not None else auth.none())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver", **options)


def context_of(client: httpx.AsyncClient) -> WebContext:
    """Return the context behind a client of `client_of`."""
    transport: Any = client._transport
    context: WebContext = transport.app.state.milepost
    return context


@pytest.fixture
async def client(manager: AsyncJobManager) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an application without authentication over `manager`."""
    async with client_of(manager) as client:
        yield client


@pytest.fixture
async def jobs(manager: AsyncJobManager) -> AsyncJobs:
    """Return an application with one job type that no worker runs."""
    jobs = AsyncJobs(manager.store, options=manager.settings)
    jobs.worker()  # so that no worker starts at the first submit

    @jobs.job("reindex", max_attempts=3)
    def reindex(run: Run, index: str, batch_size: int = 64) -> dict[str, Any]:
        """Re-embed every chunk of an index."""
        return {}

    return jobs


@pytest.fixture
async def app(jobs: AsyncJobs) -> Any:
    async with client_of(jobs) as client:
        yield client


Make = Callable[..., Any]
