"""The Redis client: lost replies, unknown outcomes, full servers, and the number of round trips."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from milepost import Jobs
from milepost.core import transitions as plans
from milepost.core.errors import OutcomeUnknownError, StoreError, StoreFullError, StoreUnavailableError
from milepost.core.transitions.change import Change
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import ApplyResult, Claim, Write
from milepost.stores.redis import RedisStore, client
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import LONG, caller_job, worker_job
from tests.redis_server import RedisServer
from tests.stores.redis.proxy import Proxy
from tests.stores.redis.store_calls import create, run

pytestmark = [pytest.mark.service("redis-server"), pytest.mark.timing]

Start = Callable[..., RedisServer]


def test_flushed_scripts_are_sent_again(redis_server: RedisServer, redis_namespace: str, blocking: bool) -> None:
    store = RedisStore(redis_server.url, namespace=redis_namespace, blocking=blocking)

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
def test_lost_reply_is_retried_without_second_effect(
    redis_server: RedisServer, redis_namespace: str, blocking: bool, lost: int
) -> None:
    with Proxy(redis_server.port) as proxy:
        store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0", namespace=redis_namespace, blocking=blocking)

        async def work() -> None:
            await store.apply([Write("a", plans.plan_create(worker_job(), new_operation_id()))])
            proxy.lose = lost
            claim = Claim(
                "w",
                {"q": None},
                (plans.plan_start(new_operation_id(), nonce="n", lease=LONG, worker="w"),),
                new_operation_id(),
            )
            claimed = (await store.apply([], claim)).claimed
            token = claimed[0].record["token"]
            proxy.lose = lost
            change = plans.plan_report(new_operation_id(), token, {"progress": "0.5"})
            outcome = (await store.apply([Write("a", change)])).outcomes[0]
            assert outcome.branch == 0
            assert outcome.job is not None
            assert outcome.job.version == 3
            assert len((await store.feed("0")).events) == 3
            version = await store.kv_put("k", "v", version=0)
            proxy.lose = lost
            assert await store.kv_put("k", "w", version=version) is not None
            proxy.lose = lost
            assert await store.kv_delete("k")
            proxy.lose = lost
            done = Write("a", plans.plan_complete(new_operation_id(), token, "1", {}))
            assert (await store.apply([done])).outcomes[0].accepted

        run(store, work)
        assert proxy.lost == 5 * lost


def test_unknown_outcome_is_not_reported_as_failure(
    redis_server: RedisServer, redis_namespace: str, blocking: bool
) -> None:
    with Proxy(redis_server.port) as proxy:
        store = RedisStore(
            f"redis://127.0.0.1:{proxy.port}/0",
            namespace=redis_namespace,
            blocking=blocking,
            connect_budget=0.3,
            retry_budget=0.6,
        )

        async def work() -> None:
            await store.apply([create(store, "a")])
            proxy.lose = 1 << 30
            with pytest.raises(OutcomeUnknownError):
                await store.apply([create(store, "b")])
            with pytest.raises(StoreUnavailableError):
                await store.get("a")
            proxy.lose = 0
            assert await store.get("b") is not None

        run(store, work)


def test_unreachable_server_is_reported_soon(start_redis: Start, blocking: bool) -> None:
    server = start_redis()
    store = RedisStore(server.url, blocking=blocking, connect_budget=0.3)

    async def work() -> None:
        await store.apply([create(store, "a")])
        server.kill()
        await asyncio.sleep(0) if not blocking else None
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            await store.get("a")
        assert time.monotonic() - began < 20
        server.start()
        assert await store.get("a") is None
        assert (await store.apply([create(store, "a")])).outcomes[0].accepted

    run(store, work)


def test_forbidden_command_is_named(start_redis: Start, blocking: bool) -> None:
    server = start_redis()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "few", "on", ">hush", "~*", "+@all", "-xrevrange", "-hgetall")
    store = RedisStore(server.url_for("few", "hush"), blocking=blocking)

    async def work() -> None:
        with pytest.raises(StoreUnavailableError, match=r"NOPERM.*xrevrange"):
            await store.feed(None)
        with pytest.raises(StoreUnavailableError, match=r"NOPERM.*hgetall"):
            await store.limits()

    run(store, work)


def test_full_server_accepts_ends_but_no_submits(start_redis: Start, blocking: bool) -> None:
    server = start_redis()
    store = RedisStore(server.url, blocking=blocking)

    async def work() -> None:
        await store.apply([Write(name, plans.plan_create(worker_job(), new_operation_id())) for name in "abc"])
        starts = tuple(plans.plan_start(new_operation_id(), nonce="n", lease=LONG, worker="w") for _ in range(2))
        jobs = (await store.apply([], Claim("w", {"q": None}, starts, new_operation_id()))).claimed
        first, second = (job.record["token"] for job in jobs)
        with server.client() as client:
            client.config_set("maxmemory", "1")
        with pytest.raises(StoreFullError):
            await store.apply([create(store, "d")])
        with pytest.raises(StoreFullError):
            await store.kv_put("k", "v")
        assert await store.renew([("a", first), ("b", second)], LONG) == ["live", "live"]
        assert (
            (await store.apply([Write("a", plans.plan_complete(new_operation_id(), first, "1", {}))]))
            .outcomes[0]
            .accepted
        )
        assert (await store.apply([Write("c", plans.plan_cancel(new_operation_id()))])).outcomes[0].accepted
        mixed = [create(store, "e"), Write("b", plans.plan_complete(new_operation_id(), second, "1", {}))]
        with pytest.raises(StoreFullError):
            await store.apply(mixed)
        assert await store.counts() == {("t", "completed"): 1, ("t", "cancelled"): 1, ("t", "running"): 1}, (
            "all or nothing"
        )
        assert (await store.apply(mixed[1:])).outcomes[0].accepted
        assert len((await store.feed("0")).events) > 0

    run(store, work)


@pytest.mark.parametrize(
    "error",
    [
        "LOADING Redis is loading", "TRYAGAIN Multiple keys", "ASK 7 127.0.0.1:1", "CLUSTERDOWN The cluster is down",
        "BUSY Redis is busy", "READONLY You can't write", "MASTERDOWN Link with MASTER is down", "NOSCRIPT No matching",
        "MOVED 7 127.0.0.1:1",
    ],
)  # fmt: skip
def test_transient_error_is_retried(
    redis_server: RedisServer, redis_namespace: str, blocking: bool, error: str
) -> None:
    with Proxy(redis_server.port) as proxy:
        store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0", namespace=redis_namespace, blocking=blocking)

        async def work() -> None:
            await store.counts()
            proxy.replacement = f"-{error}\r\n".encode()
            assert await store.counts() == {}
            assert not proxy.replacement

        run(store, work)


@pytest.mark.parametrize(
    ("error", "kind", "temporary"),
    [
        ("OOM command not allowed", StoreFullError, None),
        ("NOAUTH Authentication required.", StoreUnavailableError, False),
        ("NOPERM No permissions", StoreUnavailableError, False),
        ("MISCONF Errors writing", StoreUnavailableError, True),
        ("NOREPLICAS Not enough good replicas", StoreUnavailableError, True),
        ("CROSSSLOT Keys in request", StoreError, None),
        ("ERR unknown", StoreError, None),
    ],
)
def test_final_error_has_its_type(
    redis_server: RedisServer, redis_namespace: str, blocking: bool, error: str, kind: type[StoreError], temporary: Any
) -> None:
    with Proxy(redis_server.port) as proxy:
        store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0", namespace=redis_namespace, blocking=blocking)

        async def work() -> None:
            await store.counts()
            proxy.replacement = f"-{error}\r\n".encode()
            with pytest.raises(StoreError, match=error.split()[1]) as caught:
                await store.counts()
            assert type(caught.value) is kind
            assert temporary is None or caught.value.temporary is temporary  # type: ignore[attr-defined]
            assert await store.counts() == {}

        run(store, work)


def test_each_write_is_one_round_trip(redis_server: RedisServer, redis_namespace: str) -> None:
    with Proxy(redis_server.port) as proxy:
        store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0", namespace=redis_namespace)
        changes = [
            plans.plan_create(caller_job(), new_operation_id()),
            plans.plan_update(new_operation_id(), "running"),
            *(plans.plan_update(new_operation_id(), None, progress=str(n / 10), message="m") for n in range(10)),
            plans.plan_update(new_operation_id(), "completed", result="1"),
        ]
        for round_trip in ("to load the scripts", "to count"):
            begun = len(proxy.requests)
            for change in changes:
                assert run_sync(store.apply([Write(round_trip.replace(" ", "-"), again(change))])).outcomes[0].accepted
        assert len(proxy.requests) - begun == 13
        run_sync(store.close())


def again(change: Change) -> Change:
    """Return the same change as another operation."""
    return Change(change.transition, change.values, new_operation_id(), change.key)


@pytest.mark.parametrize("applied", [True, False])
def test_refusal_after_lost_reply_leaves_outcome_unknown(start_redis: Start, blocking: bool, applied: bool) -> None:
    """A submit with a lost reply, retried on a full server, was reported as not written although the job existed."""
    server = start_redis()
    with Proxy(server.port) as proxy:
        store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0", blocking=blocking)

        def fill(_: object = None) -> None:
            with server.client() as client:
                client.config_set("maxmemory", "1")

        async def work() -> None:
            await store.apply([create(store, "a")])
            proxy.lose = 1
            proxy.on_loss = fill
            if not applied:
                fill()
            with pytest.raises(OutcomeUnknownError, match="may have been applied"):
                await store.apply([create(store, "b")])
            assert (await store.get("b") is not None) is applied
            with pytest.raises(StoreFullError):
                await store.apply([create(store, "c")])

        run(store, work)


def test_partly_applied_batch_has_unknown_outcome(start_redis: Start, blocking: bool) -> None:
    """`submit_many` on a server that became full was reported as not written although its first jobs existed."""
    server = start_redis()
    store = RedisStore(server.url, blocking=blocking)

    async def work() -> None:
        await store.apply([create(store, "warm")])
        with server.client() as client:
            client.config_set("maxmemory", client.info("memory")["used_memory"] + 400_000)
        with pytest.raises(OutcomeUnknownError, match="a part of it may have been applied"):
            await store.apply([create(store, f"j{number}") for number in range(20_000)])
        assert 1 < sum((await store.counts()).values()) < 20_001

    run(store, work)


def test_repeated_kv_put_keeps_later_value(redis_server: RedisServer, redis_namespace: str, blocking: bool) -> None:
    """A put or delete with a lost reply was repeated over a value that another process had set since."""
    other = RedisStore(redis_server.url, namespace=redis_namespace)
    with Proxy(redis_server.port) as proxy:
        store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0", namespace=redis_namespace, blocking=blocking)

        def lose(key: str, newer: str) -> None:
            proxy.lose, proxy.on_loss = 1, lambda _: run_sync(other.kv_put(key, newer))

        async def work() -> None:
            await store.kv_delete("k")  # the server knows both scripts now
            first = await store.kv_put("k", "0")
            lose("k", "newer")
            assert await store.kv_put("k", "older") == (first or 0) + 1
            item = run_sync(other.kv_get("k"))
            assert item is not None
            assert item.value == "newer"
            lose("k", "last")
            assert await store.kv_put("k", "mine", version=item.version) == item.version + 1
            item = run_sync(other.kv_get("k"))
            assert item is not None
            assert item.value == "last"
            for there in (True, False):
                if there:
                    run_sync(other.kv_put("gone", "x"))
                else:
                    run_sync(other.kv_delete("gone"))
                lose("gone", "new")
                assert await store.kv_delete("gone") is there
                item = run_sync(other.kv_get("gone"))
                assert item is not None
                assert item.value == "new"

        run(store, work)
        assert proxy.lost == 4
    run_sync(other.close())


def test_large_request_has_more_time_for_its_reply(
    redis_server: RedisServer, redis_namespace: str, blocking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a request that a slow connection carried for more than 5 s was sent again and again."""
    monkeypatch.setattr(client, "REPLY_SECONDS", 0.05)
    monkeypatch.setattr(client, "SLOWEST_LINK", 1000)
    with Proxy(redis_server.port) as proxy:
        store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0", namespace=redis_namespace, blocking=blocking)

        async def work() -> None:
            large = "x" * 60_000  # 60 s
            await store.kv_put("k", large)  # the server knows the script now
            proxy.requests.clear()
            with redis_server.client() as connection:
                connection.client_pause(500)
            await store.kv_put("k", large)

        run(store, work)
        assert b"".join(proxy.requests).count(b"EVALSHA") == 1


def test_supersede_on_full_server_cancels_nothing(start_redis: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submit that was refused for lack of memory could cancel the job that it should have superseded."""
    server = start_redis()
    jobs = Jobs(server.url)
    jobs.job("sync")(lambda run: None)
    first = jobs.submit("sync", unique_key="k")
    apply, requests = jobs.store.apply, list[int]()

    async def fill_then_apply(writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        requests.append(len(writes))
        if len(requests) > 1:  # the first one found the job that has the key
            with server.client() as client:
                client.config_set("maxmemory", "1")
        return await apply(writes, claim)

    monkeypatch.setattr(jobs.store, "apply", fill_then_apply)
    with pytest.raises(StoreFullError):
        jobs.submit("sync", unique_key="k", on_duplicate="supersede")
    assert requests == [1, 2], "the cancel and the new job are one request"
    assert [dict(job.record) for job in jobs.list_jobs()] == [dict(first.record)]
