"""Redis in several servers: a Cluster of three masters, a slot on the move, a failover by Sentinel."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from milepost.core import lifecycle as plans
from milepost.core.errors import StoreUnavailable
from milepost.stores.driving import drive
from milepost.stores.ids import new_op
from milepost.stores.protocol import Claim, Store, Write
from milepost.stores.redis import RedisStore
from milepost.testing.conformance.harness import LONG, worker_job
from tests.services import RedisServer, free_port

pytestmark = [pytest.mark.slow, pytest.mark.service("redis-server")]

SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Look again until it is so; a hang guard."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def create(job_id: str) -> Write:
    return Write(job_id, plans.plan_create(worker_job(), new_op()))


@pytest.fixture
def cluster(start_redis: Callable[..., RedisServer]) -> list[RedisServer]:
    """Three masters that know each other."""
    ports = [str(free_port()) for _ in SLOTS]
    servers = [start_redis(options={"cluster-enabled": "yes", "cluster-port": port}) for port in ports]
    for server, (low, high) in zip(servers, SLOTS, strict=True):
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high)
    with servers[0].client() as client:
        for server, port in zip(servers[1:], ports[1:], strict=True):
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, port)
    until(lambda: all(_knows_all(server) for server in servers))
    return servers


def _knows_all(server: RedisServer) -> bool:
    with server.client() as client:
        info = str(client.execute_command("CLUSTER", "INFO"))
        return (
            "cluster_state:ok" in info and "cluster_slots_assigned:16384" in info
        ) or "'cluster_state': 'ok'" in info


@pytest.mark.parametrize("namespace", ["a", "b", "c"])
def test_every_script_runs_where_the_slot_of_the_namespace_is(cluster: list[RedisServer], namespace: str) -> None:
    seeds = ",".join(f"127.0.0.1:{server.port}" for server in cluster)

    async def work(store: Store) -> None:
        name = new_op()
        assert (await store.apply([create(name)])).outcomes[0].accepted
        starts = (plans.plan_start(new_op(), nonce="n", lease=LONG, worker="w"),)
        (job,) = (await store.apply([], Claim("w", {"q": 5}, starts, new_op()))).claimed
        assert await store.renew([(name, job.record["token"])], LONG) == ["live"]
        assert (await store.apply([Write(name, plans.plan_cancel(new_op()))])).outcomes[0].accepted
        assert await store.idle("w", ["q"], 5)
        assert len(await store.stoppings()) >= 1
        assert len(await store.events(name)) == 3
        assert len((await store.feed("0")).events) >= 3
        await store.set_limit("q", 7, False)
        assert await store.limits() == {"q": (7, False)}
        await store.shelf_put("k", "v", ttl=60)
        assert [item.key for item in await store.shelf_scan("")] == ["k"]
        await store.sweep(lease=30, interval=0)
        assert (await store.get(name)) is not None
        await store.close()

    drive(work(RedisStore(f"redis+cluster://{seeds}", namespace=namespace)))
    asyncio.run(work(RedisStore(f"redis+cluster://127.0.0.1:{cluster[1].port}", namespace=namespace, blocking=False)))


def test_while_the_slot_moves_writes_wait_and_nothing_is_torn(cluster: list[RedisServer]) -> None:
    store = RedisStore(f"redis+cluster://127.0.0.1:{cluster[0].port}", namespace="a")
    slot = key_slot(b"{a}:")
    owner = next(place for place, (low, high) in enumerate(SLOTS) if low <= slot <= high)
    source, target = cluster[owner], cluster[(owner + 1) % 3]
    names = [new_op() for _ in range(10)]
    drive(store.apply([create(name) for name in names]))
    with source.client(decode_responses=False) as here, target.client(decode_responses=False) as there:
        ids = [client.execute_command("CLUSTER", "MYID") for client in (here, there)]
        there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        impatient = RedisStore(f"redis+cluster://127.0.0.1:{source.port}", namespace="a", connect_budget=0.2)
        keys = here.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        written: list[bool] = []
        writer = threading.Thread(
            target=lambda: written.append(drive(store.apply([create("late")])).outcomes[0].accepted)
        )
        writer.start()
        for place, key in enumerate(keys):
            if place == len(keys) // 2:
                with pytest.raises(StoreUnavailable):
                    drive(impatient.get(names[0]))
            here.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        assert there.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) == len(keys)
        for client in (there, here):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        writer.join()
    assert written == [True]
    assert drive(store.counts()) == {("t", "pending"): 11}
    drive(store.close())


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Callable[[RedisServer], int]]:
    """Start a Sentinel that watches a master under the name `jobs`; its port."""
    started: list[subprocess.Popen[bytes]] = []

    def start(master: RedisServer) -> int:
        program = shutil.which("redis-sentinel")
        command = [program] if program else [master.program]
        port, config = free_port(), tmp_path / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor jobs 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds jobs 500\nsentinel failover-timeout jobs 3000\n"
        )
        started.append(
            subprocess.Popen(
                [*command, str(config), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )
        return port

    yield start
    for process in started:
        process.kill()
        process.wait(10)


def test_a_failover_is_followed(
    start_redis: Callable[..., RedisServer], sentinel: Callable[[RedisServer], int]
) -> None:
    master = start_redis()
    replica = start_redis(options={"replicaof": f"127.0.0.1 {master.port}", "repl-diskless-sync-delay": "0"})
    with replica.client() as client:
        until(lambda: client.info("replication")["master_link_status"] == "up")
    port = sentinel(master)
    store = RedisStore(f"redis+sentinel://127.0.0.1:{port}/jobs/0", connect_budget=40)
    assert drive(store.apply([create("a")])).outcomes[0].accepted
    with master.client() as client:
        client.wait(1, 5000)
    until(lambda: b"num-slaves\r\n$1\r\n1" in _asked(port))
    master.kill()
    assert drive(store.apply([create("b")])).outcomes[0].accepted
    assert drive(store.counts()) == {("t", "pending"): 2}
    with replica.client() as client:
        assert client.info("replication")["role"] == "master"
    drive(store.close())


def _asked(port: int) -> bytes:
    """What the Sentinel says of its master."""
    import socket

    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"SENTINEL MASTER jobs\r\n")
        return connection.recv(65536)
