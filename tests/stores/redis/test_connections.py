"""Connections of the Redis store: users, sockets, TLS, wrong URLs, restarts, forks and threads."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from milepost.core.errors import InvalidInputError, StoreUnavailableError
from milepost.stores.ids import new_operation_id
from milepost.stores.redis import RedisStore
from milepost.stores.redis.connection import Node, SyncConnection, SyncConnectionPool
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.concurrency import frequent_switches
from tests.redis_server import RedisServer
from tests.stores.redis.store_calls import create, run
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.service("redis-server"), pytest.mark.timing]


Start = Callable[..., RedisServer]


def test_restart_between_requests_is_hidden(start_redis: Start, blocking: bool) -> None:
    server = start_redis(appendonly="always")
    store = RedisStore(server.url, blocking=blocking, connect_budget=PATIENCE, retry_budget=PATIENCE)

    async def work() -> None:
        await store.apply([create(store, "a")])
        server.kill()
        later = threading.Timer(0.3, server.start)
        later.start()
        assert (await store.apply([create(store, "b")])).outcomes[0].accepted
        later.join()
        assert await store.counts() == {("t", "pending"): 2}

    run(store, work)


def test_feed_reconnects_after_cut_connection(start_redis: Start, blocking: bool) -> None:
    server = start_redis()
    store = RedisStore(server.url, blocking=blocking)

    async def work() -> None:
        position = (await store.feed(None)).position
        await store.feed(position)
        await store.apply([create(store, "a")])
        with server.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert [event.kind for event in (await store.feed(position)).events] == ["created"]

    run(store, work)


def test_forked_child_opens_own_connections(redis_server: RedisServer, redis_namespace: str) -> None:
    store = RedisStore(redis_server.url, namespace=redis_namespace)
    run_sync(store.apply([create(store, "a")]))
    with redis_server.client() as client:
        before = client.info("clients")["connected_clients"]
    child = os.fork()
    if not child:
        try:
            code = 0 if run_sync(store.apply([create(store, "b")])).outcomes[0].accepted else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run_sync(store.get("b")) is not None
    with redis_server.client() as client:
        until(lambda: client.info("clients")["connected_clients"] <= before)


def test_threads_share_store(redis_server: RedisServer, redis_namespace: str) -> None:
    store = RedisStore(redis_server.url, namespace=redis_namespace)

    def work(number: int) -> None:
        for step in range(30):
            run_sync(store.apply([create(store, f"{number}-{step}")]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run_sync(store.counts()) == {("t", "pending"): 240}
    run_sync(store.close())


async def test_cancelled_task_keeps_connection_usable(redis_server: RedisServer, redis_namespace: str) -> None:
    store = RedisStore(redis_server.url, namespace=redis_namespace, blocking=False)
    await store.apply([create(store, "a")])
    for wait in (0.0, 0.001, 0.01):
        tasks = [
            asyncio.create_task(store.get("a")),
            asyncio.create_task(store.wait_for_work("w", ["q"], 30)),
            asyncio.create_task(store.feed("0-0", timeout=0) if wait else store.feed((await now(store)), timeout=30)),
        ]
        await asyncio.sleep(wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        found = await asyncio.gather(*(store.get("a") for _ in range(20)))
        assert {job.job_id for job in found if job is not None} == {"a"}
    assert await store.wait_for_work("w", ["q"], 0.01) is False
    await store.close()
    with redis_server.client() as client:
        until(lambda: not [c for c in client.client_list() if c["cmd"] in ("blpop", "xread")])


async def now(store: RedisStore) -> str:
    return (await store.feed(None)).position


def reached(url: str, secret: str, blocking: bool) -> None:
    """Send every kind of request over a URL, and check that a store shows no password."""
    store = RedisStore(url, namespace="mp", blocking=blocking)

    async def work() -> None:
        await store.apply([create(store, new_operation_id())])
        await store.feed("0")
        await store.wait_for_work("w", ["q"], 0.01)
        await store.limits()
        assert (await store.check_health()).kind == "redis"
        assert secret not in f"{store.url} {store!r} {store.with_blocking(blocking=not blocking)!r}"

    run(store, work)


def test_connects_by_socket_by_user_and_in_resp3(start_redis: Start, blocking: bool) -> None:
    secret = "s3cret/@:é"
    decode_id = start_redis(password=secret, users={"app": f"on >{secret} ~{{mp}}:* +@all"})
    for url in (decode_id.url, decode_id.url_for("app", secret), decode_id.unix_url, f"{decode_id.url}?protocol=3"):
        reached(url, secret, blocking)


def test_connects_by_tls(start_redis: Start, blocking: bool) -> None:
    pytest.importorskip("trustme")
    for server in (start_redis(tls=True), start_redis(tls="mutual", password="hush")):
        reached(server.url, "hush", blocking)


def test_wrong_password_is_reported_without_quoting(start_redis: Start, blocking: bool) -> None:
    server = start_redis(password="right")
    store = RedisStore(server.url_for(None, "wr0ng-one"), blocking=blocking, connect_budget=0.3)

    async def work() -> None:
        with pytest.raises(StoreUnavailableError) as caught:
            await store.get("a")
        assert "wr0ng-one" not in str(caught.value)

    run(store, work)


def test_absent_database_is_not_reported_as_outage(redis_server: RedisServer, blocking: bool) -> None:
    """Regression: a worker whose URL named database 99 of 16 waited for the store for ever."""
    url = urlsplit(redis_server.url)._replace(path="/99").geturl()
    store = RedisStore(url, blocking=blocking, connect_budget=0.3)

    async def work() -> None:
        with pytest.raises(StoreUnavailableError, match="has no database 99, which the URL names") as caught:
            await store.get("a")
        assert not caught.value.temporary

    run(store, work)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:port/0", "redis+sentinel://u:hush@h:1", "redis+tunnel://h", "redis://u:hush@h/0?protocol=x",
        "redis://u:hush@h/one", "redis+sentinel://u:hush@h/service/one",
    ],
)  # fmt: skip
def test_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        RedisStore(url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("namespace", ["", "a b", "{a}", "x" * 65])
def test_invalid_namespace_is_refused(namespace: str) -> None:
    with pytest.raises(InvalidInputError):
        RedisStore("redis://localhost", namespace=namespace)


def test_threads_reset_a_pool_at_the_same_time() -> None:
    """Regression: a failover reset the connections in each of its threads; one raised "pop from empty list"."""

    class Socket:
        def disconnect(self) -> None:
            for _ in range(20):
                pass

    pool = SyncConnectionPool()
    end = time.monotonic() + 1.5

    def release_and_reset() -> None:
        while time.monotonic() < end:
            for _ in range(5):
                pool.release(SyncConnection(Socket(), Node("localhost", 1), None))
            pool.reset()

    with frequent_switches(), ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(release_and_reset) for _ in range(4)]:
            done.result()
