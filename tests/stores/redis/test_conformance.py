"""The store in Redis conforms."""

from __future__ import annotations

import itertools

import pytest

from milepost.stores.redis import RedisStore
from milepost.testing.conformance import Conformance
from milepost.testing.conformance.harness import Factory

_numbers = itertools.count(1)


@pytest.mark.service("redis-server")
class TestRedisStore(Conformance):
    @pytest.fixture
    def blocking(self, redis_url: str) -> Factory:
        return lambda: RedisStore(redis_url, namespace=f"c{next(_numbers)}", blocking=True)

    @pytest.fixture
    def asynchronous(self, redis_url: str) -> Factory:
        return lambda: RedisStore(redis_url, namespace=f"c{next(_numbers)}", blocking=False)
