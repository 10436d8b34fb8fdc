"""The Redis store conforms, on a real server."""

from __future__ import annotations

import itertools

import pytest

from milepost.stores.redis import RedisStore
from milepost.testing.conformance import Conformance
from milepost.testing.conformance.harness import Factory


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
