"""Parsing of Redis URLs."""

from __future__ import annotations

import pytest

from milepost.core.errors import InvalidInputError
from milepost.stores.factory import open_store
from milepost.stores.redis.connect import Node, parse_redis_url


@pytest.mark.parametrize("url", ["unix:///run/redis/s", "unix:///run/redis/s?db=0", "unix://:secret@/run/redis/s?db=0"])
def test_unix_socket_url_with_and_without_password(url: str) -> None:
    assert parse_redis_url(url).nodes == (Node("/run/redis/s", 0),)


@pytest.mark.parametrize("mark", list("/?#[]"))
def test_unencoded_password_is_not_quoted(mark: str) -> None:
    with pytest.raises(InvalidInputError, match="%2F") as caught:
        open_store(f"redis://:sec{mark}ret@host:6379/0")
    assert "sec" not in str(caught.value)
    assert "ret" not in str(caught.value)


@pytest.mark.parametrize("host", ["my..host", "x" * 64, "[::1"])
def test_invalid_host_is_refused(host: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        open_store(f"redis://{host}:6379/0")
    assert caught.value.field == "url"
