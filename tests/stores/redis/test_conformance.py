"""The conformance suite on a Redis Cluster and on Valkey; `tests/conformance/test_redis.py` runs it on one Redis."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from milepost.stores.redis import RedisStore
from milepost.testing.conformance import Conformance
from milepost.testing.conformance.harness import Factory
from tests.redis_server import RedisServer
from tests.stores.redis.clusters import three_masters, url_of

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    """Yield the URL of three masters."""
    with three_masters() as servers:
        yield url_of(servers)


@pytest.fixture(scope="module")
def valkey_url() -> Iterator[str]:
    """Yield the URL of a Valkey."""
    with RedisServer(service="valkey-server") as server:
        yield server.url


class OnRedis(Conformance):
    """The suite on the servers of `address`."""

    @pytest.fixture
    def blocking(self, address: str) -> Factory:
        return lambda: RedisStore(address, namespace=f"c{next(_numbers)}", blocking=True)

    @pytest.fixture
    def asynchronous(self, address: str) -> Factory:
        return lambda: RedisStore(address, namespace=f"c{next(_numbers)}", blocking=False)


@pytest.mark.slow
@pytest.mark.service("redis-server")
class TestRedisStoreOnACluster(OnRedis):
    """Each namespace is in one slot, so that those of the scenarios are spread over the three masters."""

    @pytest.fixture
    def address(self, cluster_url: str) -> str:
        return cluster_url


@pytest.mark.slow
@pytest.mark.service("valkey-server")
class TestRedisStoreOnValkey(OnRedis):
    @pytest.fixture
    def address(self, valkey_url: str) -> str:
        return valkey_url
