"""The Redis store conforms, on a real server."""

from __future__ import annotations

import itertools

import pytest

from milepost.core.lifecycle import plan_delete, plan_receipt
from milepost.stores.driving import drive
from milepost.stores.redis import RedisStore
from milepost.testing.conformance import Conformance
from milepost.testing.conformance.harness import Factory, World
from milepost.testing.conformance.situations import reach
from tests.services import RedisServer


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

    def test_nothing_of_a_job_is_left_behind(self, redis_server: RedisServer, redis_namespace: str) -> None:
        """I22: of jobs that were deleted or purged only what the namespace shares stays, and the ids for a minute."""
        store = RedisStore(redis_server.url, namespace=redis_namespace, blocking=True)
        world = World(store)

        async def history() -> None:
            for number, status in enumerate(
                ["pending", "running", "completed", "failed", "cancelled", "stopping", "overdue"] * 2
            ):
                job_id = f"gone{number}"
                token = await reach(world, job_id, "worker", status)
                await world.store.shelf_put(f"k{number}", "v")
                await world.store.shelf_delete(f"k{number}")
                if status in ("stopping", "overdue"):
                    await world.do(job_id, plan_receipt(world.op(), token, "killed", confirmed=True))
                if number % 2 and status not in ("pending", "running"):
                    continue
                await world.do(job_id, plan_delete(world.op()))
                for stopped_id, stop_token, _ in await store.stoppings():
                    await world.do(stopped_id, plan_receipt(world.op(), stop_token, "killed", confirmed=True))
            await world.tick()
            await store.purge(ttl=0)

        drive(history())
        with redis_server.client() as client:
            left = {str(key) for key in client.scan_iter(count=1000)}
            lasting = {key for key in left if client.ttl(key) == -1}
        drive(store.close())
        assert [key for key in lasting if "gone" in key] == []
        assert len(lasting) <= 12, sorted(lasting)
