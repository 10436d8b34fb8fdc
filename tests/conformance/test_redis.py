"""The conformance suite on a real Redis server."""

from __future__ import annotations

import itertools

import pytest

from milepost.core.transitions import plan_delete, plan_receipt
from milepost.stores.redis import RedisStore
from milepost.stores.retention import purge_older
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance import Conformance
from milepost.testing.conformance.clocks import Outages, SetClocks
from milepost.testing.conformance.expiry import Expiry
from milepost.testing.conformance.harness import Factory, StoreFixture
from milepost.testing.conformance.transition_matrix import reach
from tests.conformance.moved_clocks import ServerClock, clocked_store
from tests.redis_server import RedisServer


@pytest.mark.service("redis-server")
class TestRedisStore(Conformance):
    @pytest.fixture
    def blocking(self, redis_url: str, redis_namespace: str) -> Factory:
        numbers = itertools.count(1)
        return lambda: RedisStore(redis_url, namespace=f"{redis_namespace}.{next(numbers)}", blocking=True)

    @pytest.fixture
    def asynchronous(self, redis_url: str, redis_namespace: str) -> Factory:
        numbers = itertools.count(1)
        return lambda: RedisStore(redis_url, namespace=f"{redis_namespace}.{next(numbers)}", blocking=False)

    def test_deleted_job_leaves_no_keys(self, redis_server: RedisServer, redis_namespace: str) -> None:
        """I22: of jobs that were deleted or purged only what the namespace shares stays, and the ids for an hour."""
        store = RedisStore(redis_server.url, namespace=redis_namespace, blocking=True)
        fixture = StoreFixture(store)

        async def history() -> None:
            for number, status in enumerate(
                ["pending", "running", "completed", "failed", "cancelled", "stopping", "overdue"] * 2
            ):
                job_id = f"gone{number}"
                token = await reach(fixture, job_id, "worker", status)
                await fixture.store.kv_put(f"k{number}", "v")
                await fixture.store.kv_delete(f"k{number}")
                if status in ("stopping", "overdue"):
                    await fixture.do(job_id, plan_receipt(fixture.operation_id(), token, "killed", confirmed=True))
                if number % 2 and status not in ("pending", "running"):
                    continue
                await fixture.do(job_id, plan_delete(fixture.operation_id()))
                for stopped_id, stop_token, _ in await store.draining_leases():
                    await fixture.do(
                        stopped_id, plan_receipt(fixture.operation_id(), stop_token, "killed", confirmed=True)
                    )
            await fixture.tick()
            await purge_older(store, ttl=0)

        run_sync(history())
        with redis_server.client() as client:
            left = {str(key) for key in client.scan_iter(f"{{{store.namespace}}}:*", count=1000)}
            lasting = {key for key in left if client.ttl(key) == -1}
            kept = [client.ttl(key) for key in left if ":x:" in key]
        run_sync(store.close())
        assert [key for key in lasting if "gone" in key] == []
        assert len(lasting) <= 12, sorted(lasting)
        assert kept
        assert 3500 < min(kept) <= max(kept) <= 3600, "a server's clock that is set ahead by less ends none of them"


@pytest.mark.service("redis-server")
class TestRedisStoreOnMovedClock(Outages, SetClocks, Expiry):
    test_repeated_submit_is_new_after_an_hour = None  # type: ignore[assignment]  # only the server's own clock expires keys

    @pytest.fixture
    def clock(self, redis_server: RedisServer, redis_namespace: str) -> ServerClock:
        return ServerClock(redis_server, redis_namespace)

    @pytest.fixture
    def blocking(self, redis_url: str, redis_namespace: str, clock: ServerClock) -> Factory:
        return lambda: clocked_store(redis_url, redis_namespace, clock, blocking=True)

    @pytest.fixture
    def asynchronous(self, redis_url: str, redis_namespace: str, clock: ServerClock) -> Factory:
        return lambda: clocked_store(redis_url, redis_namespace, clock, blocking=False)
