"""Getting an answer out of Redis: lost replies, restarts, full servers, forks, users, TLS."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable

import pytest

from milepost.core import lifecycle as plans
from milepost.core.change import Change
from milepost.core.errors import InvalidInput, OutcomeUnknown, StoreFull, StoreUnavailable
from milepost.stores.driving import drive
from milepost.stores.ids import new_op
from milepost.stores.protocol import Claim, Store, Write
from milepost.stores.redis import RedisStore
from milepost.testing.conformance.harness import LONG, caller_job, worker_job
from tests.services import RedisServer
from tests.stores.redis.proxy import Proxy

pytestmark = pytest.mark.service("redis-server")

Start = Callable[..., RedisServer]


def create(store: Store, job_id: str, **fields: str) -> Write:
    return Write(job_id, plans.plan_create(caller_job(**fields), new_op()))


def run(store: RedisStore, work: Callable[[], object]) -> object:
    """The work of one face: driven, or in a loop of its own."""
    if store.blocking:
        return drive(work())  # type: ignore[arg-type]

    async def whole() -> object:
        try:
            return await work()  # type: ignore[misc]
        finally:
            await store.close()

    return asyncio.run(whole())


@pytest.fixture(params=[True, False], ids=["blocking", "asynchronous"])
def face(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_scripts_that_were_flushed_are_sent_again(redis_server: RedisServer, redis_namespace: str, face: bool) -> None:
    store = RedisStore(redis_server.url, namespace=redis_namespace, blocking=face)

    async def work() -> None:
        await store.apply([create(store, "a")])
        with redis_server.client() as client:
            client.script_flush()
        outcome = (await store.apply([create(store, "b")])).outcomes[0]
        assert outcome.accepted
        assert not outcome.repeated
        assert await store.counts() == {("t", "pending"): 2}

    run(store, work)


@pytest.mark.parametrize("lost", [1, 3])
def test_a_lost_reply_is_asked_for_again_and_nothing_happens_twice(
    redis_server: RedisServer, redis_namespace: str, face: bool, lost: int
) -> None:
    with Proxy(redis_server.port) as proxy:
        store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0", namespace=redis_namespace, blocking=face)

        async def work() -> None:
            await store.apply([Write("a", plans.plan_create(worker_job(), new_op()))])
            proxy.lose = lost
            claim = Claim("w", {"q": None}, (plans.plan_start(new_op(), nonce="n", lease=LONG, worker="w"),), new_op())
            claimed = (await store.apply([], claim)).claimed
            token = claimed[0].record["token"]
            proxy.lose = lost
            change = plans.plan_report(new_op(), token, {"progress": "0.5"})
            outcome = (await store.apply([Write("a", change)])).outcomes[0]
            assert outcome.case == 0
            assert outcome.job is not None
            assert outcome.job.version == 3
            assert len((await store.feed("0")).events) == 3
            version = await store.shelf_put("k", "v", version=0)
            proxy.lose = lost
            assert await store.shelf_put("k", "w", version=version) is not None
            proxy.lose = lost
            assert await store.shelf_delete("k")
            proxy.lose = lost
            done = Write("a", plans.plan_complete(new_op(), token, "1", {}))
            assert (await store.apply([done])).outcomes[0].accepted

        run(store, work)
        assert proxy.lost == 5 * lost


def test_an_outcome_that_stays_unknown_is_never_called_a_failure(
    redis_server: RedisServer, redis_namespace: str, face: bool
) -> None:
    with Proxy(redis_server.port) as proxy:
        store = RedisStore(
            f"redis://127.0.0.1:{proxy.port}/0",
            namespace=redis_namespace,
            blocking=face,
            connect_budget=0.3,
            retry_budget=0.6,
        )

        async def work() -> None:
            await store.apply([create(store, "a")])
            proxy.lose = 1 << 30
            with pytest.raises(OutcomeUnknown):
                await store.apply([create(store, "b")])
            with pytest.raises(StoreUnavailable):
                await store.get("a")
            proxy.lose = 0
            assert await store.get("b") is not None

        run(store, work)


def test_a_server_that_is_not_there_is_said_so_soon(start_redis: Start, face: bool) -> None:
    server = start_redis()
    store = RedisStore(server.url, blocking=face, connect_budget=0.3)

    async def work() -> None:
        await store.apply([create(store, "a")])
        server.kill()
        await asyncio.sleep(0) if not face else None
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.get("a")
        assert time.monotonic() - began < 20
        server.start()
        assert await store.get("a") is None
        assert (await store.apply([create(store, "a")])).outcomes[0].accepted

    run(store, work)


def test_a_restart_in_between_is_not_noticed(start_redis: Start, face: bool) -> None:
    server = start_redis(appendonly="always")
    store = RedisStore(server.url, blocking=face)

    async def work() -> None:
        await store.apply([create(store, "a")])
        server.kill()
        later = threading.Timer(0.3, server.start)
        later.start()
        assert (await store.apply([create(store, "b")])).outcomes[0].accepted
        later.join()
        assert await store.counts() == {("t", "pending"): 2}

    run(store, work)


def test_a_feed_whose_connection_was_cut_is_read_on_another(start_redis: Start, face: bool) -> None:
    server = start_redis()
    store = RedisStore(server.url, blocking=face)

    async def work() -> None:
        position = (await store.feed(None)).position
        await store.feed(position)
        await store.apply([create(store, "a")])
        with server.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert [event.kind for event in (await store.feed(position)).events] == ["created"]

    run(store, work)


def test_a_command_that_a_user_may_not_run_is_said(start_redis: Start, face: bool) -> None:
    server = start_redis()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "few", "on", ">hush", "~*", "+@all", "-xrevrange", "-hgetall")
    store = RedisStore(server.url_for("few", "hush"), blocking=face)

    async def work() -> None:
        with pytest.raises(StoreUnavailable, match=r"NOPERM.*xrevrange"):
            await store.feed(None)
        with pytest.raises(StoreUnavailable, match=r"NOPERM.*hgetall"):
            await store.limits()

    run(store, work)


def test_a_full_server_takes_ends_but_no_submits(start_redis: Start, face: bool) -> None:
    server = start_redis()
    store = RedisStore(server.url, blocking=face)

    async def work() -> None:
        await store.apply([Write(name, plans.plan_create(worker_job(), new_op())) for name in "abc"])
        starts = tuple(plans.plan_start(new_op(), nonce="n", lease=LONG, worker="w") for _ in range(2))
        jobs = (await store.apply([], Claim("w", {"q": None}, starts, new_op()))).claimed
        first, second = (job.record["token"] for job in jobs)
        with server.client() as client:
            client.config_set("maxmemory", "1")
        with pytest.raises(StoreFull):
            await store.apply([create(store, "d")])
        with pytest.raises(StoreFull):
            await store.shelf_put("k", "v")
        assert await store.renew([("a", first), ("b", second)], LONG) == ["live", "live"]
        assert (await store.apply([Write("a", plans.plan_complete(new_op(), first, "1", {}))])).outcomes[0].accepted
        assert (await store.apply([Write("c", plans.plan_cancel(new_op()))])).outcomes[0].accepted
        mixed = [create(store, "e"), Write("b", plans.plan_complete(new_op(), second, "1", {}))]
        with pytest.raises(StoreFull):
            await store.apply(mixed)
        assert await store.counts() == {("t", "completed"): 2, ("t", "cancelled"): 1}
        assert len((await store.feed("0")).events) > 0

    run(store, work)


def test_a_fork_makes_connections_of_its_own(redis_server: RedisServer, redis_namespace: str) -> None:
    store = RedisStore(redis_server.url, namespace=redis_namespace)
    drive(store.apply([create(store, "a")]))
    with redis_server.client() as client:
        before = client.info("clients")["connected_clients"]
    child = os.fork()
    if not child:
        try:
            code = 0 if drive(store.apply([create(store, "b")])).outcomes[0].accepted else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert drive(store.get("b")) is not None
    with redis_server.client() as client:
        assert client.info("clients")["connected_clients"] <= before


def test_threads_share_a_store(redis_server: RedisServer, redis_namespace: str) -> None:
    store = RedisStore(redis_server.url, namespace=redis_namespace)

    def work(number: int) -> None:
        for step in range(30):
            drive(store.apply([create(store, f"{number}-{step}")]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drive(store.counts()) == {("t", "pending"): 240}
    drive(store.close())


async def test_a_task_that_is_cancelled_breaks_no_connection(redis_server: RedisServer, redis_namespace: str) -> None:
    store = RedisStore(redis_server.url, namespace=redis_namespace, blocking=False)
    await store.apply([create(store, "a")])
    for wait in (0.0, 0.001, 0.01):
        tasks = [
            asyncio.create_task(store.get("a")),
            asyncio.create_task(store.idle("w", ["q"], 30)),
            asyncio.create_task(store.feed("0-0", timeout=0) if wait else store.feed((await now(store)), timeout=30)),
        ]
        await asyncio.sleep(wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        found = await asyncio.gather(*(store.get("a") for _ in range(20)))
        assert {job.job_id for job in found if job is not None} == {"a"}
    assert await store.idle("w", ["q"], 0.01) is False
    await store.close()
    with redis_server.client() as client:
        left = [c for c in client.client_list() if c["cmd"] in ("blpop", "xread")]
    assert left == []


async def now(store: RedisStore) -> str:
    return (await store.feed(None)).position


def reached(url: str, secret: str, face: bool) -> None:
    """Every kind of request by a URL, and no password in what a store says of itself."""
    store = RedisStore(url, namespace="mp", blocking=face)

    async def work() -> None:
        await store.apply([create(store, new_op())])
        await store.feed("0")
        await store.idle("w", ["q"], 0.01)
        await store.limits()
        assert (await store.examine()).kind == "redis"
        assert secret not in f"{store.url} {store!r} {store.twin(blocking=not face)!r}"

    run(store, work)


def test_a_store_is_reached_by_socket_by_user_and_in_resp3(start_redis: Start, face: bool) -> None:
    secret = "s3cret/@:é"
    plain = start_redis(password=secret, users={"app": f"on >{secret} ~{{mp}}:* +@all"})
    for url in (plain.url, plain.url_for("app", secret), plain.unix_url, f"{plain.url}?protocol=3"):
        reached(url, secret, face)


def test_a_store_is_reached_by_tls(start_redis: Start, face: bool) -> None:
    pytest.importorskip("trustme")
    for server in (start_redis(tls=True), start_redis(tls="mutual", password="hush")):
        reached(server.url, "hush", face)


def test_a_wrong_password_is_said_and_not_quoted(start_redis: Start, face: bool) -> None:
    server = start_redis(password="right")
    store = RedisStore(server.url_for(None, "wr0ng-one"), blocking=face, connect_budget=0.3)

    async def work() -> None:
        with pytest.raises(StoreUnavailable) as caught:
            await store.get("a")
        assert "wr0ng-one" not in str(caught.value)

    run(store, work)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:port/0", "redis+sentinel://u:hush@h:1", "redis+tunnel://h", "redis://u:hush@h/0?protocol=x",
        "redis://u:hush@h/one", "redis+sentinel://u:hush@h/service/one",
    ],
)  # fmt: skip
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        RedisStore(url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("namespace", ["", "a b", "{a}", "x" * 65])
def test_a_namespace_that_is_none_is_refused(namespace: str) -> None:
    with pytest.raises(InvalidInput):
        RedisStore("redis://localhost", namespace=namespace)


def test_thirteen_writes_are_thirteen_round_trips(redis_server: RedisServer, redis_namespace: str) -> None:
    with Proxy(redis_server.port) as proxy:
        store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0", namespace=redis_namespace)
        changes = [
            plans.plan_create(caller_job(), new_op()),
            plans.plan_update(new_op(), "running"),
            *(plans.plan_update(new_op(), None, progress=str(n / 10), message="m") for n in range(10)),
            plans.plan_update(new_op(), "completed", result="1"),
        ]
        for round_trip in ("to load the scripts", "to count"):
            begun = len(proxy.requests)
            for change in changes:
                assert drive(store.apply([Write(round_trip.replace(" ", "-"), again(change))])).outcomes[0].accepted
        assert len(proxy.requests) - begun == 13
        drive(store.close())


def again(change: Change) -> Change:
    """The same change as another operation."""
    return Change(change.shape, change.values, new_op(), change.key)
