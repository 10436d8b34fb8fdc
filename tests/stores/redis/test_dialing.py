"""Reading the URLs of servers."""

from __future__ import annotations

import pytest

from milepost.stores.redis.dialing import Node, target_of


@pytest.mark.parametrize("url", ["unix:///run/redis/s", "unix:///run/redis/s?db=0", "unix://:secret@/run/redis/s?db=0"])
def test_a_unix_socket_with_and_without_a_password(url: str) -> None:
    assert target_of(url).nodes == (Node("/run/redis/s", 0),)
