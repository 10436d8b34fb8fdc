"""Errors, waits and cancellation while connecting."""

from __future__ import annotations

import asyncio

import pytest

from milepost.core.errors import InvalidInputError, StoreUnavailableError
from milepost.stores.redis import RedisStore
from tests.redis_server import RedisServer
from tests.stores.redis.store_calls import run
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.service("redis-server"), pytest.mark.timing]


def test_unknown_url_option_is_named(redis_url: str, blocking: bool) -> None:
    store = RedisStore(f"{redis_url}?sokcet_timeout=3", blocking=blocking)

    async def work() -> None:
        with pytest.raises(InvalidInputError, match=r"^url: .*'sokcet_timeout'"):
            await store.now()

    run(store, work)


def test_error_quotes_server_that_is_no_sentinel(redis_server: RedisServer, blocking: bool) -> None:
    url = f"redis+sentinel://127.0.0.1:{redis_server.port}/main"
    store = RedisStore(url, blocking=blocking, connect_budget=0.1)

    async def work() -> None:
        with pytest.raises(StoreUnavailableError, match="unknown command 'SENTINEL'"):
            await store.now()

    run(store, work)


async def test_waiters_fail_with_the_shared_connect(redis_namespace: str) -> None:
    """Requests do not wait for one another's attempts: each fails when its own budget is exceeded."""
    reached: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: reached.append(writer), "127.0.0.1", 0)
    host, port = silent.sockets[0].getsockname()
    url = f"redis://{host}:{port}/0?socket_timeout=0.3"
    store = RedisStore(url, namespace=redis_namespace, blocking=False, connect_budget=0.1)
    ends = await asyncio.gather(*(store.now() for _ in range(20)), return_exceptions=True)
    assert {type(end) for end in ends} == {StoreUnavailableError}
    assert len(reached) < 5
    await store.close()
    for writer in reached:
        writer.close()
    silent.close()


@pytest.mark.parametrize("verb", ["feed", "wait_for_work", "now"])
async def test_cancel_while_connecting_ends_task(redis_url: str, redis_namespace: str, verb: str) -> None:
    """Cancels at every step of the loop: in Python 3.11, wait_for may swallow a cancellation."""
    for steps in range(40):
        store = RedisStore(redis_url, namespace=redis_namespace, blocking=False)
        waits = {
            "feed": lambda store=store: store.feed("0", timeout=3600),
            "wait_for_work": lambda store=store: store.wait_for_work("w", ["q"], 3600),
            "now": lambda store=store: store.now(),
        }
        task = asyncio.create_task(waits[verb]())
        for _ in range(steps):
            await asyncio.sleep(0)
        is_over = task.done()
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.done(), steps
        assert task.cancelled() is not is_over, steps
        await store.close()
