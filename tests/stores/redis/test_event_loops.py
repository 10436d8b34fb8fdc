"""Connections are closed with the event loop that opened them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable

import pytest

from milepost import AsyncJobManager
from milepost.settings import Settings
from milepost.stores.redis import RedisStore
from milepost.stores.sync_bridge import run_sync
from tests.redis_server import RedisServer
from tests.waiting import until

pytestmark = pytest.mark.service("redis-server")


def closed_at_once(work: Callable[[], Awaitable[object]]) -> None:
    """Run in a loop that is closed without ending its generators."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(work())  # type: ignore[arg-type]
    loop.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("run", [asyncio.run, closed_at_once])
@pytest.mark.parametrize("waits", [False, True])
def test_closed_event_loop_leaves_no_connection(
    redis_server: RedisServer, redis_namespace: str, run: Callable[..., object], waits: bool
) -> None:
    """Each `asyncio.run` with one manager left a connection, a descriptor and its loop, until there were too many files."""
    manager = AsyncJobManager(redis_server.url, options=Settings(namespace=redis_namespace))
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def call() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        if waits:
            position = (await manager.store.feed(None)).position
            await manager.store.feed(position, timeout=0.001)
        await manager.list_jobs(limit=1)

    def count() -> int:
        with redis_server.client() as client:
            return len(client.client_list())

    before = count()
    for _ in range(10):
        run(call() if run is asyncio.run else call)
    left = 0 if run is asyncio.run else 1 + waits  # those of the last loop are ended at the next use
    until(lambda: count() <= before + left)
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= (0 if run is asyncio.run else 1)
    asyncio.run(call())
    until(lambda: count() <= before)


def test_store_works_again_after_close(redis_server: RedisServer, redis_namespace: str) -> None:
    manager = AsyncJobManager(redis_server.url, options=Settings(namespace=redis_namespace))

    async def calls() -> int:
        await manager.create_job()
        await manager.store.close()
        await manager.create_job()
        await manager.store.close()
        await manager.store.close()
        return await manager.count_jobs()

    assert asyncio.run(calls()) == 2
    assert asyncio.run(manager.count_jobs()) == 2


def test_blocking_store_is_reused(redis_server: RedisServer, redis_namespace: str) -> None:
    """Each call that a task queue made beside an event loop opened one more connection."""
    store = RedisStore(redis_server.url, namespace=redis_namespace, blocking=False)
    run_sync(store.with_blocking(blocking=True).now())
    with redis_server.client() as client:
        before = client.info("stats")["total_connections_received"]
        for _ in range(20):
            run_sync(store.with_blocking(blocking=True).now())
        assert client.info("stats")["total_connections_received"] == before
    run_sync(store.with_blocking(blocking=True).close())
