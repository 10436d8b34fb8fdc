"""Redis in several servers: a slot of a Cluster on the move, a failover by Sentinel. What works on a Cluster at all is
shown by the conformance suite.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from milepost.core import lifecycle as plans
from milepost.core.errors import StoreUnavailable
from milepost.stores.driving import drive
from milepost.stores.ids import new_op
from milepost.stores.protocol import Write
from milepost.stores.redis import RedisStore
from milepost.testing.conformance.harness import worker_job
from tests.services import RedisServer
from tests.stores.redis.clusters import SLOTS, three_masters, watched_pair

pytestmark = [pytest.mark.slow, pytest.mark.service("redis-server")]


def create(job_id: str) -> Write:
    return Write(job_id, plans.plan_create(worker_job(), new_op()))


@pytest.fixture
def cluster() -> Iterator[list[RedisServer]]:
    """Three masters that know each other."""
    with three_masters() as servers:
        yield servers


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


def test_a_failover_is_followed(tmp_path: Path) -> None:
    with watched_pair(tmp_path) as pair:
        store = RedisStore(pair.url, connect_budget=40)
        assert drive(store.apply([create("a")])).outcomes[0].accepted
        pair.settle()
        pair.master.kill()
        assert drive(store.apply([create("b")])).outcomes[0].accepted
        assert drive(store.counts()) == {("t", "pending"): 2}
        with pair.replica.client() as client:
            assert client.info("replication")["role"] == "master"
        drive(store.close())
