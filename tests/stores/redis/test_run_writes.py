"""Starts and ends of runs in straight-line Lua change and answer the same as the general code."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.core.transitions.change import Change, TransitionType
from milepost.stores.protocol import Claim, Write
from milepost.stores.redis import lua_compiler, store
from milepost.stores.redis.lua_compiler import LuaCompiler
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import StoreFixture, worker_job
from milepost.testing.conformance.transition_matrix import reach
from tests.conformance.moved_clocks import ServerClock, clocked_store
from tests.redis_server import RedisServer
from tests.stores.redis.straight_line import LARGE, data_of, outcome_of

QUEUES = ["q", "t@gpu", "q\x1fkey", "q\x1fkey\x1fpartition"]


def general(transition: TransitionType) -> str:
    return ""


def calls_of(server: RedisServer, command: str) -> int:
    with server.client() as client:
        return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def random_create(chance: random.Random, number: int) -> Write:
    fields = worker_job(chance.choices(QUEUES, [8, 3, 1, 1])[0], attempts=3)
    more = {
        "message": "Job created",
        "priority": chance.choice(["0", "5"]),
        "labels": chance.choice(["a=b", "a=b\x1f:group=g"]),
        "not_before": "1800000005000000",
        "not_after": "1900000000000000",
        "unique_key": chance.choice(["one", "two"]),
        "metadata": "{}",
        "params": LARGE if chance.random() < 0.1 else "{}",
        "unknown_field": "kept",
    }
    rare = {"not_before", "not_after", "unique_key", "labels"}
    fields |= {name: value for name, value in more.items() if chance.random() < (0.15 if name in rare else 0.5)}
    return Write(f"{number:05}", plans.plan_create(fields, f"C{number:07}"), chance.random() < 0.5)


def random_end(chance: random.Random, operation_id: str, token: str) -> Change:
    report = {"progress": "0.5", "message": "half", "eta": "3", "usage": '{"usd":1}', "stalled": "quiet", "state": "{}"}
    report = {name: value for name, value in report.items() if chance.random() < 0.15}
    match chance.choices(["complete", "text", "fail", "release", "report", "checkpoint"], [10, 2, 2, 1, 2, 1])[0]:
        case "complete":
            return plans.plan_complete(
                operation_id,
                token,
                chance.choice([None, "1", LARGE]),
                report,
                open_children=chance.choice([None, None, "2"]),
            )
        case "text":
            return plans.plan_complete_without_result(operation_id, token, "no JSON", "text", report)
        case "fail":
            delay = chance.choice([None, 0, 1_000_000])
            return plans.plan_fail(operation_id, token, error="e", failure="f", report=report, delay=delay)
        case "release":
            return plans.plan_release(operation_id, token, report)
        case "report":
            return plans.plan_report(operation_id, token, report)
        case _:
            return plans.plan_checkpoint(operation_id, token, "1", report)


def random_claim(chance: random.Random, number: int) -> Claim:
    release = chance.choice([None, "1"])
    starts = tuple(
        plans.plan_start(
            f"S{number:05}{place:02}", nonce=f"{number:08}{place:03}", lease=10**9, worker="w", release=release
        )
        for place in range(chance.choice([1, 3, 10]))
    )
    limit = chance.choice([None, None, 3])
    return Claim("w", {"q": limit, "t@gpu": None}, starts, f"K{number:07}", None, number)


@pytest.mark.service("redis-server")
@pytest.mark.parametrize("seed", range(2))
def test_run_writes_agree_with_general_code(
    redis_server: RedisServer, redis_namespace: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ServerClock(redis_server, redis_namespace)
    names = [f"{redis_namespace}.straight", f"{redis_namespace}.general"]
    stores = [clocked_store(redis_server.url, name, clock, blocking=True) for name in names]
    codes = [(LuaCompiler(), lua_compiler.run_writes), (LuaCompiler(), general)]
    chance = random.Random(seed)
    removals = [0, 0]

    async def both(writes: Sequence[Write], claim: Claim | None, note: str) -> list[Job]:
        found: list[Any] = []
        for place, (compiler, run_writes) in enumerate(codes):
            monkeypatch.setattr(store, "_COMPILER", compiler)
            monkeypatch.setattr(lua_compiler, "run_writes", run_writes)
            removals[place] -= calls_of(redis_server, "zrem")
            found.append(await stores[place].apply(writes, claim))
            removals[place] += calls_of(redis_server, "zrem")
        first, second = found
        assert list(map(outcome_of, first.outcomes)) == list(map(outcome_of, second.outcomes)), note
        assert [one.job for one in first.outcomes] == [one.job for one in second.outcomes], note
        assert (first.claimed, first.next_due) == (second.claimed, second.next_due), note
        return list(first.claimed)

    async def history() -> None:
        running: dict[str, str] = {}
        used: list[Write] = []
        for number in range(80):
            clock.move_to(1_800_000_000_000_000 + chance.choice([0, 100_000, 10_000_000]) * number)
            if number == 50:  # from here on there is a draining lease
                for one in stores:
                    await reach(StoreFixture(one, clock), "d", "worker", "stopping")
            await both(
                [random_create(chance, number * 10 + place) for place in range(chance.randrange(8))], None, f"{number}"
            )
            ends = []
            for job_id in chance.sample(sorted(running), min(len(running), chance.randrange(12))):
                token = running[job_id] if chance.random() < 0.95 else "1:unknownnonc"
                change = random_end(chance, f"E{number:03}{len(ends):04}", token)
                ends.append(Write(job_id, change, chance.random() < 0.1))
            if used and chance.random() < 0.3:
                ends.append(chance.choice(used[-20:]))
            used += ends
            claim = random_claim(chance, number + 1) if chance.random() < 0.9 else None
            for job in await both(ends, claim, f"{number}: {ends} {claim}"):
                running[job.job_id] = job.record["token"]
            for one in ends:
                assert await stores[0].get(one.job_id) == await stores[1].get(one.job_id), f"{number}: {one}"
                assert await stores[0].events(one.job_id) == await stores[1].events(one.job_id), f"{number}: {one}"

    run_sync(history())
    assert removals[0] < 0.9 * removals[1], "straight-line code was hardly used"
    assert data_of(redis_server, names[0]) == data_of(redis_server, names[1])
    for one in stores:
        run_sync(one.close())
