"""Reading the URLs of servers."""

from __future__ import annotations

import pytest

from milepost.core.errors import InvalidInput
from milepost.stores.opening import open_store
from milepost.stores.redis.dialing import Node, target_of


@pytest.mark.parametrize("url", ["unix:///run/redis/s", "unix:///run/redis/s?db=0", "unix://:secret@/run/redis/s?db=0"])
def test_a_unix_socket_with_and_without_a_password(url: str) -> None:
    assert target_of(url).nodes == (Node("/run/redis/s", 0),)


@pytest.mark.parametrize("mark", list("/?#[]"))
def test_a_password_that_must_be_encoded_is_not_quoted_and_the_remedy_is_said(mark: str) -> None:
    with pytest.raises(InvalidInput, match="%2F") as caught:
        open_store(f"redis://:sec{mark}ret@host:6379/0")
    assert "sec" not in str(caught.value)
    assert "ret" not in str(caught.value)


@pytest.mark.parametrize("host", ["my..host", "x" * 64, "[::1"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_store(f"redis://{host}:6379/0")
    assert caught.value.field == "url"
