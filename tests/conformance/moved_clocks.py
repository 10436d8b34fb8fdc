"""A Redis store with a clock that a test can move: its scripts read the time from a key."""

from __future__ import annotations

import time
from functools import cache
from hashlib import sha1
from typing import Any

from milepost.stores.redis import RedisStore
from milepost.stores.redis.client import RedisClient
from milepost.stores.redis.connection import Arg, Call
from milepost.stores.redis.scripts import Script
from milepost.testing import FrozenClock
from tests.redis_server import RedisServer


class ServerClock(FrozenClock):
    """A frozen clock, written to a key of the server whenever it is moved. It begins at the time of the feed's ids."""

    def __init__(self, server: RedisServer, name: str) -> None:
        super().__init__(time.time_ns() // 1000)
        self.key = f"clock:{name}"
        self._server = server
        self._write()

    def advance(self, seconds: float) -> int:
        super().advance(seconds)
        return self._write()

    def move_to(self, micros: int) -> None:
        super().move_to(micros)
        self._write()

    def _write(self) -> int:
        seconds, micros = divmod(self(), 1_000_000)
        with self._server.client() as client:
            client.hset(self.key, mapping={"s": seconds, "u": micros})
        return self()


class ClockedPort:
    """A client that replaces the clock in each script."""

    def __init__(self, port: RedisClient, key: str) -> None:
        self._client = port
        self._key = key

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def call(self, script: Script, *args: Arg) -> Any:
        return await self._client.call(_clocked(script, self._key), *args)

    async def call_all(self, *calls: Call) -> list[Any]:
        return await self._client.call_all(*((_clocked(script, self._key), args) for script, args in calls))


def clocked_store(url: str, namespace: str, clock: ServerClock, *, blocking: bool) -> RedisStore:
    """Return a store that uses a clock."""
    store = RedisStore(url, namespace=namespace, blocking=blocking)
    store._client = ClockedPort(store._client, clock.key)  # type: ignore[assignment]
    return store


@cache
def _clocked(script: Script, key: str) -> Script:
    source = script.source.replace(b"redis.call('TIME')", f"redis.call('HMGET', '{key}', 's', 'u')".encode(), 1)
    assert source != script.source, "the script reads no clock"
    return script._replace(source=source, sha=sha1(source).hexdigest().encode())
