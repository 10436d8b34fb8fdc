"""Fixtures of the web tests: an application in this process on each kind of store, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager
from milepost.settings import Settings
from milepost.web import auth, create_app
from milepost.web.site import Site

STORES = ["memory", "sqlite", "redis"]


def store_address(kind: str, request: pytest.FixtureRequest) -> tuple[str, Settings]:
    """The URL of an empty store of a kind, and the settings that go with it."""
    if kind == "memory":
        return "memory://", Settings()
    if kind == "sqlite":
        pytest.importorskip("milepost.stores.sqlite")
        return request.getfixturevalue("sqlite_url"), Settings()
    pytest.importorskip("milepost.stores.redis")
    return request.getfixturevalue("redis_url"), Settings(namespace=request.getfixturevalue("redis_namespace"))


@pytest.fixture(params=[STORES[0], *(pytest.param(kind, marks=()) for kind in STORES[1:])])
async def manager(request: pytest.FixtureRequest) -> AsyncIterator[AsyncJobManager]:
    """A manager on each kind of store."""
    url, options = store_address(request.param, request)
    manager = AsyncJobManager(url, options=options)
    yield manager
    await manager.close()


@pytest.fixture
async def memory() -> AsyncIterator[AsyncJobManager]:
    """A manager on a store in memory."""
    manager = AsyncJobManager("memory://")
    yield manager
    await manager.close()


def client_of(jobs: Any, who: Any = None, **options: Any) -> httpx.AsyncClient:
    """A client of an application made for these jobs."""
    app = create_app(jobs, auth=who if who is not None else auth.none())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver", **options)


def site_of(client: httpx.AsyncClient) -> Site:
    """What stands behind a client that `client_of` made."""
    transport: Any = client._transport
    site: Site = transport.app.state.milepost
    return site


@pytest.fixture
async def client(manager: AsyncJobManager) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the interface over `manager`, with nobody asked who they are."""
    async with client_of(manager) as client:
        yield client


Make = Callable[..., Any]
