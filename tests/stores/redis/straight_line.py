"""Shared by the tests that compare straight-line Lua with the general code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from milepost.stores.protocol import WriteResult
from milepost.stores.redis import RedisStore
from milepost.stores.sync_bridge import run_sync
from tests.conformance.moved_clocks import ServerClock, clocked_store
from tests.redis_server import RedisServer

LARGE = '"' + "x" * 70_000 + '"'


class Counting:
    """A client that counts the answers of straight-line Lua."""

    def __init__(self, client: Any) -> None:
        self._client, self.single = client, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def call(self, *words: Any) -> Any:
        reply = await self._client.call(*words)
        self.single += isinstance(reply, bytes) and b" " in reply
        return reply


@contextmanager
def both_codes(server: RedisServer, namespace: str, clock: ServerClock, least: int) -> Iterator[list[RedisStore]]:
    """Yield a store for straight-line Lua and one for the general code. At the end they have equal data, and straight-line
    Lua has answered more than `least` times.
    """
    names = [f"{namespace}.straight", f"{namespace}.general"]
    stores = [clocked_store(server.url, name, clock, blocking=True) for name in names]
    stores[0]._client = counting = Counting(stores[0]._client)  # type: ignore[assignment]
    yield stores
    assert data_of(server, names[0]) == data_of(server, names[1])
    assert counting.single > least, "straight-line code was hardly used"
    for store in stores:
        run_sync(store.close())


def data_of(server: RedisServer, namespace: str) -> dict[str, Any]:
    """Return all keys of a namespace with their values; of the feed without positions, which have the real time."""
    found: dict[str, Any] = {}
    with server.client() as client:
        for key in client.scan_iter(f"{{{namespace}}}:*", count=1000):
            read = {
                "string": client.get,
                "hash": client.hgetall,
                "set": client.smembers,
                "list": lambda key: client.lrange(key, 0, -1),
                "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
                "stream": lambda key: [fields for _, fields in client.xrange(key)],
            }[client.type(key)]
            value = read(key)
            if isinstance(value, str):  # the order of the fields of an ended job is arbitrary
                value = sorted(value.split("\n"))
            found[key.partition("}")[2]] = value
    return found


def outcome_of(result: WriteResult) -> tuple[Any, ...]:
    return result.branch, result.repeated, result.key_owner_id, result.wait
