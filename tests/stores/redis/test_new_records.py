"""A batch of new records in straight-line Lua changes and answers the same as the general code, which runs beside leases."""

from __future__ import annotations

import random

import pytest

from milepost.core import transitions as plans
from milepost.stores.protocol import Write
from milepost.stores.redis import RedisStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import StoreFixture, worker_job
from milepost.testing.conformance.transition_matrix import reach
from tests.conformance.moved_clocks import ServerClock
from tests.redis_server import RedisServer
from tests.stores.redis.straight_line import LARGE, both_codes, outcome_of

NO_LEASE = [("none", "1:unknownnonc")]
QUEUES = ["q", "r", "t@gpu", "q\x1fkey", "q\x1fkey\x1fpartition", ""]


def random_batch(chance: random.Random, number: int) -> list[Write]:
    """Return creates of one shape, most of them with equal types and queues and with new ids."""
    names = {
        "priority": ["0", "5", "-3"],
        "arguments": ["{}", '{"n":1}', LARGE],
        "labels": ["a=b", "a=b\x1fc=d", "c=d", "a=:e"],
        "message": ["", "Job created"],
        "not_before": ["1800000000000000", "1900000000000000"],
        "not_after": ["1900000000000000"],
        "unique_key": ["one", "two"],
        "expires_in": ["1000000"],
    }
    rare = {"not_before", "not_after", "unique_key", "expires_in"}
    shape = [name for name in names if chance.random() < (0.05 if name in rare else 0.5)]
    queue = chance.choices(QUEUES, [12, 3, 3, 1, 1, 1])[0]
    writes = []
    for place in range(chance.choice([1, 1, 2, 5, 90])):
        fields = worker_job(queue if chance.random() < 0.99 else "q")
        fields["type"] = "t" if chance.random() < 0.99 else "other"
        fields |= {name: chance.choices(names[name], range(len(names[name]), 0, -1))[0] for name in shape}
        if "arguments" in fields and chance.random() < 0.9:
            fields["arguments"] = "{}"
        job_id = f"{number}-{place}" if chance.random() < 0.98 else f"{number // 2}-{chance.randrange(2)}"
        writes.append(Write(job_id, plans.plan_create(fields, f"A{number:05}{place:02}")))
    return writes


@pytest.mark.service("redis-server")
@pytest.mark.parametrize("seed", range(3))
def test_new_records_agree_with_general_code(redis_server: RedisServer, redis_namespace: str, seed: int) -> None:
    clock = ServerClock(redis_server, redis_namespace)
    chance = random.Random(seed)

    async def history(straight: RedisStore, general: RedisStore) -> None:
        used: list[list[Write]] = []
        for number in range(100):
            clock.move_to(1_800_000_000_000_000 + chance.choice([0, 1, 10_000_000]) * number)
            if number == 80:  # from here on there is a draining lease, which may have the id or key of a new job
                for store in (straight, general):
                    await reach(StoreFixture(store, clock), "d", "worker", "stopping")
            batch = random_batch(chance, number)
            if used and chance.random() < 0.1:
                batch = chance.choice(used[-6:])
            used.append(batch)
            answer = len(batch) == 1 and chance.random() < 0.5
            batch = [Write(write.job_id, write.change, answer) for write in batch]
            applied = (await straight.apply(batch)).outcomes
            expected, _ = await general.heartbeat(batch, NO_LEASE, None)
            for write, one, other in zip(batch, applied, expected, strict=True):
                assert outcome_of(one) == outcome_of(other), f"{number}: {write}"
                assert one.job == other.job, f"{number}: {write}"
                assert await straight.get(write.job_id) == await general.get(write.job_id), f"{number}: {write}"
            if chance.random() < 0.2:
                for store in (straight, general):
                    await store.apply([Write(batch[0].job_id, plans.plan_delete(f"D{number:07}"))])

    with both_codes(redis_server, redis_namespace, clock, 30) as stores:
        run_sync(history(*stores))
