"""An event loop that was closed is not kept by a store that it used."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from milepost.stores.postgres import PostgresStore
from milepost.stores.postgres.connection import MOST_CONNECTIONS
from milepost.stores.sync_bridge import run_sync
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service("postgresql")


def test_closed_event_loop_is_not_kept(postgres_server: PostgresServer) -> None:
    """Each `asyncio.run` whose calls had to wait for a free connection left its loop in memory."""
    store = PostgresStore(postgres_server.url(), namespace=postgres_server.emptied("loops"), blocking=False)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def calls() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(*(store.now() for _ in range(2 * MOST_CONNECTIONS)))

    for _ in range(4):
        asyncio.run(calls())
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1, "the last one is released at the next use"
    asyncio.run(store.close())
    run_sync(store.with_blocking(blocking=True).close())
