"""Slot migration in a Cluster and failover by Sentinel; the conformance suite covers normal operation on a Cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from milepost.core import transitions as plans
from milepost.core.errors import StoreUnavailableError
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Write
from milepost.stores.redis import RedisStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import worker_job
from tests.redis_server import RedisServer
from tests.stores.redis.clusters import SLOTS, three_masters, watched_pair
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.service("redis-server"), pytest.mark.timing]


def create(job_id: str) -> Write:
    return Write(job_id, plans.plan_create(worker_job(), new_operation_id()))


@pytest.fixture
def cluster() -> Iterator[list[RedisServer]]:
    """Three masters that know each other."""
    with three_masters() as servers:
        yield servers


def test_writes_wait_during_slot_migration(cluster: list[RedisServer]) -> None:
    url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    store = RedisStore(url, namespace="a", connect_budget=PATIENCE)  # outlasts the migration on a slow machine
    slot = key_slot(b"{a}:")
    owner = next(place for place, (low, high) in enumerate(SLOTS) if low <= slot <= high)
    source, target = cluster[owner], cluster[(owner + 1) % 3]
    names = [new_operation_id() for _ in range(10)]
    run_sync(store.apply([create(name) for name in names]))
    with source.client(decode_responses=False) as here, target.client(decode_responses=False) as there:
        ids = [client.execute_command("CLUSTER", "MYID") for client in (here, there)]
        there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        impatient = RedisStore(f"redis+cluster://127.0.0.1:{source.port}", namespace="a", connect_budget=0.2)
        keys = here.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        written: list[bool] = []
        writer = threading.Thread(
            target=lambda: written.append(run_sync(store.apply([create("late")])).outcomes[0].accepted)
        )
        writer.start()
        for place, key in enumerate(keys):
            if place == len(keys) // 2:
                with pytest.raises(StoreUnavailableError):
                    run_sync(impatient.get(names[0]))
            here.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        assert there.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) == len(keys)
        for client in (there, here):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        writer.join()
    assert written == [True]
    assert run_sync(store.counts()) == {("t", "pending"): 11}
    run_sync(store.close())


def test_store_follows_sentinel_failover(tmp_path: Path) -> None:
    with watched_pair(tmp_path) as pair:
        store = RedisStore(pair.url, connect_budget=40)
        assert run_sync(store.apply([create("a")])).outcomes[0].accepted
        pair.settle()
        pair.master.kill()
        assert run_sync(store.apply([create("b")])).outcomes[0].accepted
        assert run_sync(store.counts()) == {("t", "pending"): 2}
        with pair.replica.client() as client:
            assert client.info("replication")["role"] == "master"
        run_sync(store.close())
