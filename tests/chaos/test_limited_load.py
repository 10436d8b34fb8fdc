"""Many partitions under load, with a tenth of the numbers of `make soak`."""

from __future__ import annotations

import pytest

from tests.chaos import limited_load

STORES = [
    "sqlite",
    pytest.param("redis", marks=pytest.mark.service("redis-server")),
    pytest.param("postgres", marks=pytest.mark.service("postgresql")),
]
pytestmark = [pytest.mark.slow, pytest.mark.timing, pytest.mark.timeout(300)]


@pytest.mark.parametrize("kind", STORES)
def test_limit_of_each_partition_holds_under_kills(kind: str) -> None:
    with limited_load.store(kind) as url:
        exceeded, kills = limited_load.run_under_kills(url, 100)
    assert exceeded == []
    assert kills


@pytest.mark.parametrize("kind", ["memory", *STORES])
def test_large_partition_does_not_delay_small_ones(kind: str) -> None:
    with limited_load.store(kind) as url:
        _, of_large = limited_load.run_small(url, 10_000)
    assert 0 < of_large < limited_load.SMALL, "the small ones take less than twice the turns that they take alone"
