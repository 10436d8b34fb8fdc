"""Coming to a connection: what is said when there is none, who waits for one, and who gives up meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from milepost.core.errors import InvalidInput, StoreUnavailable
from milepost.stores.redis import RedisStore
from tests.services import RedisServer
from tests.stores.redis.test_port import run

pytestmark = pytest.mark.service("redis-server")


@pytest.fixture(params=[True, False], ids=["blocking", "asynchronous"])
def face(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_an_option_that_connections_do_not_have_is_said(redis_url: str, face: bool) -> None:
    store = RedisStore(f"{redis_url}?sokcet_timeout=3", blocking=face)

    async def work() -> None:
        with pytest.raises(InvalidInput, match=r"^url: .*'sokcet_timeout'"):
            await store.now()

    run(store, work)


def test_what_refuses_to_be_asked_as_a_sentinel_is_quoted(redis_server: RedisServer, face: bool) -> None:
    url = f"redis+sentinel://127.0.0.1:{redis_server.port}/main"
    store = RedisStore(url, blocking=face, connect_budget=0.1)

    async def work() -> None:
        with pytest.raises(StoreUnavailable, match="unknown command 'SENTINEL'"):
            await store.now()

    run(store, work)


async def test_who_waits_for_a_connection_fails_with_it(redis_namespace: str) -> None:
    """Nobody stands in a queue of trials, each as long as the first: a request is given up when its own time is over."""
    reached: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: reached.append(writer), "127.0.0.1", 0)
    host, port = silent.sockets[0].getsockname()
    url = f"redis://{host}:{port}/0?socket_timeout=0.3"
    store = RedisStore(url, namespace=redis_namespace, blocking=False, connect_budget=0.1)
    ends = await asyncio.gather(*(store.now() for _ in range(20)), return_exceptions=True)
    assert {type(end) for end in ends} == {StoreUnavailable}
    assert len(reached) < 5
    await store.close()
    for writer in reached:
        writer.close()
    silent.close()


@pytest.mark.parametrize("verb", ["feed", "idle", "now"])
async def test_a_task_that_is_cancelled_while_it_connects_ends(redis_url: str, redis_namespace: str, verb: str) -> None:
    """At whatever step of the loop: Python 3.11 may take a cancel for the end of a wait that it was to interrupt."""
    for steps in range(40):
        store = RedisStore(redis_url, namespace=redis_namespace, blocking=False)
        waits = {
            "feed": lambda store=store: store.feed("0", timeout=3600),
            "idle": lambda store=store: store.idle("w", ["q"], 3600),
            "now": lambda store=store: store.now(),
        }
        task = asyncio.create_task(waits[verb]())
        for _ in range(steps):
            await asyncio.sleep(0)
        is_over = task.done()
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.done(), steps
        assert task.cancelled() is not is_over, steps
        await store.close()
