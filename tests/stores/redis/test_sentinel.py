"""A planned failover, in which the old master still accepts writes, with a Sentinel simulated by the test."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from milepost.core import transitions as plans
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Write
from milepost.stores.redis import RedisStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import worker_job
from tests.redis_server import RedisServer
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.service("redis-server"), pytest.mark.timing]


class Named:
    """A Sentinel that names the master which the test has set."""

    def __init__(self, master: RedisServer) -> None:
        self.master = master
        self.asked = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis+sentinel://127.0.0.1:{self._listening.getsockname()[1]}/jobs/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            while head := lines.readline():
                words = []
                for _ in range(int(head[1:])):
                    size = int(lines.readline()[1:])
                    words.append(lines.read(size + 2)[:size])
                if words[0] != b"SENTINEL":
                    connection.sendall(b"+OK\r\n")
                    continue
                self.asked += 1
                port = str(self.master.port)
                connection.sendall(f"*2\r\n$9\r\n127.0.0.1\r\n${len(port)}\r\n{port}\r\n".encode())

    def close(self) -> None:
        """Answer no more."""
        self._listening.close()


@pytest.fixture
def servers(start_redis: Callable[..., RedisServer]) -> list[RedisServer]:
    """Return two servers that take writes, as the old and the new master do during a planned failover."""
    return [start_redis(), start_redis()]


@pytest.fixture
def sentinel(servers: list[RedisServer], monkeypatch: pytest.MonkeyPatch) -> Iterator[Named]:
    """Yield a Sentinel that names the first of them."""
    monkeypatch.setattr("milepost.stores.redis.connect.SENTINEL_INTERVAL", 0.05)
    named = Named(servers[0])
    yield named
    named.close()


def create(job_id: str) -> Write:
    """Return a write that creates a job."""
    return Write(job_id, plans.plan_create(worker_job(), new_operation_id()))


@pytest.mark.parametrize("blocking", [True, False])
def test_planned_failover_leaves_old_master(servers: list[RedisServer], sentinel: Named, blocking: bool) -> None:
    """Jobs submitted in the eleven seconds after a planned failover were acknowledged by the old master, and lost."""

    async def there() -> None:
        store = RedisStore(sentinel.url, blocking=blocking)
        assert (await store.apply([create("a")])).outcomes[0].accepted
        sentinel.master = servers[1]
        asked = sentinel.asked
        await asyncio.to_thread(until, lambda: sentinel.asked >= asked + 2)
        for number in range(20):
            await store.apply([create(f"b{number}")])
        await store.close()

    asyncio.run(there())
    with servers[0].client() as old, servers[1].client() as new:
        assert (len(old.keys("*j:*")), len(new.keys("*j:*"))) == (1, 20)


def test_wait_for_work_moves_to_new_master(servers: list[RedisServer], sentinel: Named) -> None:
    """An idle worker listened to the old master until that ended its connections."""
    store = RedisStore(sentinel.url)
    assert run_sync(store.wait_for_work("worker", ("t",), 0.01)) is False
    sentinel.master = servers[1]
    asked = sentinel.asked
    until(lambda: sentinel.asked >= asked + 2)
    other = RedisStore(servers[1].url)
    run_sync(other.wake("worker"))
    assert run_sync(store.wait_for_work("worker", ("t",), PATIENCE)) == "worker"
    run_sync(store.close())
    run_sync(other.close())


def test_silent_sentinel_delays_no_request(servers: list[RedisServer], sentinel: Named) -> None:
    """Sentinels may be unavailable while the master works."""
    store = RedisStore(sentinel.url)
    assert run_sync(store.apply([create("a")])).outcomes[0].accepted
    sentinel.close()
    for number in range(20):
        assert run_sync(store.apply([create(f"b{number}")])).outcomes[0].accepted
    assert run_sync(store.counts()) == {("t", "pending"): 21}
    run_sync(store.close())


@pytest.mark.parametrize("replicas", [0, 1])
def test_doctor_warns_of_lossy_failover(servers: list[RedisServer], sentinel: Named, replicas: int) -> None:
    """No warning said that a Sentinel failover loses acknowledged jobs unless each write needs a replica."""
    store = RedisStore(sentinel.url)
    run_sync(store.now())
    with servers[0].client() as client:
        client.config_set("min-replicas-to-write", str(replicas))
    warned = any("min-replicas-to-write" in warning for warning in run_sync(store.check_health()).warnings)
    assert warned is (replicas == 0)
    run_sync(store.close())
    alone = RedisStore(servers[1].url)
    assert not any("min-replicas" in warning for warning in run_sync(alone.check_health()).warnings)
    run_sync(alone.close())
