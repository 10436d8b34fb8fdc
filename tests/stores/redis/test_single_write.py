"""A single write in straight-line Lua changes and answers the same as the general code, which runs if the record is requested."""

from __future__ import annotations

import random
from typing import Any

import pytest

from milepost.core import transitions as plans
from milepost.core.transitions.change import Change
from milepost.stores.protocol import Write
from milepost.stores.redis import RedisStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import StoreFixture
from milepost.testing.conformance.transition_matrix import reach
from tests.conformance.moved_clocks import ServerClock
from tests.redis_server import RedisServer
from tests.stores.redis.straight_line import LARGE, both_codes, outcome_of

JOBS = {
    "manual": ("manual", "running"),
    "waiting": ("manual", "pending"),
    "watched": ("manual", "watched"),
    "ended": ("manual", "completed"),
    "worker": ("worker", "running"),
    "track": ("track", "running"),
    "stopping": ("worker", "stopping"),
}


def random_change(chance: random.Random, operation_id: str, token: str) -> Change:
    def some(values: dict[str, list[str]]) -> dict[str, str]:
        return {name: chance.choice(of) for name, of in values.items() if chance.random() < 0.4}

    report = some(
        {
            "progress": ["0.1", "0.5", "0.50", "0.9"],
            "message": ["", "a", "b"],
            "eta": ["1", "2"],
            "stalled": ["", "quiet"],
            "usage": ['{"usd":1}', '{"usd":2,"n":5}'],
            "state": ["{}", LARGE],
        }
    )
    caller = some({"progress": ["0.2", "1"], "message": ["", "c"], "error": ["", "no"], "result": ["1", LARGE]})
    match chance.choice(["update", "update", "report", "report", "log", "checkpoint", "step"]):
        case "update":
            status = chance.choices([None, "pending", "running", "failed"], [20, 4, 6, 1])[0]
            return plans.plan_update(operation_id, status, **caller)
        case "report":
            return plans.plan_report(operation_id, token, report, chance.choice(["progress", "stage", "stalled"]))
        case "log":
            return plans.plan_log(operation_id, token, '{"lines":[]}')
        case "checkpoint":
            return plans.plan_checkpoint(operation_id, token, chance.choice(["1", LARGE]), report)
        case _:
            usage = chance.choice([None, '{"usd":1}', '{"usd":2}'])
            return plans.plan_keep_step(operation_id, token, chance.choice(["{}", LARGE]), '{"key":"a"}', usage)


@pytest.mark.service("redis-server")
@pytest.mark.parametrize("seed", range(3))
def test_single_write_agrees_with_general_code(redis_server: RedisServer, redis_namespace: str, seed: int) -> None:
    clock = ServerClock(redis_server, redis_namespace)
    chance = random.Random(seed)

    async def history(single: RedisStore, general: RedisStore) -> None:
        tokens = {}
        for store in (single, general):
            fixture = StoreFixture(store, clock)
            clock.move_to(1_800_000_000_000_000)
            for job_id, (run_by, state) in JOBS.items():
                tokens[job_id] = await reach(fixture, job_id, run_by, state)
        used: list[Change] = []
        for number in range(200):
            clock.move_to(
                clock() + chance.choice([1, 1_000_000, 700_000_000, -40_000_000])
            )  # the last: it was set back
            job_id = chance.choices(list(JOBS), [4, 1, 2, 1, 4, 1, 1])[0]
            token = tokens[job_id] if chance.random() < 0.9 else "1:unknownnonc"
            change = random_change(chance, f"{chance.choice('AB')}xyz{number:04}", token)
            if used and chance.random() < 0.15:
                change = chance.choice(used[-6:])
            used.append(change)
            found = await apply(single, Write(job_id, change, False))
            assert found == await apply(general, Write(job_id, change, True)), f"{number}: {change}"
            assert await single.get(job_id) == await general.get(job_id), f"{number}: {change}"

    async def apply(store: RedisStore, write: Write) -> tuple[Any, ...]:
        return outcome_of((await store.apply([write])).outcomes[0])

    with both_codes(redis_server, redis_namespace, clock, 40) as stores:
        run_sync(history(*stores))
