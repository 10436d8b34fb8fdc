"""Limits by limit key and partition, as users set them, on every store."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from milepost import AsyncJobs, Jobs, Run, Snooze
from milepost.core.errors import InvalidInputError
from milepost.core.limits import KEEP, Limit, LimitState, Rate
from milepost.core.transitions import plan_start
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.protocol import Claim, Store
from milepost.stores.sync_bridge import run_sync


@pytest.fixture
def jobs(every_store: Store) -> Any:
    jobs = Jobs(every_store)

    @jobs.job("embed")
    def embed(run: Run) -> None: ...

    jobs.worker()  # so that a store in memory starts no worker by itself
    yield jobs
    jobs.close()


def claimed(jobs: Jobs, most: int) -> list[str]:
    """Start as many jobs as a worker may, and return their ids."""
    starts = tuple(plan_start(new_operation_id(), nonce=new_nonce(), lease=60_000_000, worker="w") for _ in range(most))
    claim = Claim("w", {"embed": None}, starts, new_operation_id())
    return [job.job_id for job in run_sync(jobs.store.apply([], claim)).claimed]


def test_limit_holds_and_is_listed_with_its_use(jobs: Jobs) -> None:
    jobs.limit("embed", running=3, per_partition=2)
    for number in range(3):
        jobs.submit("embed", job_id=f"a{number}", partition="acme")
    jobs.submit("embed", job_id="b", partition="globex")
    assert jobs.limits() == [LimitState("embed", 3, 2, claimable=4)]
    assert claimed(jobs, 9) == ["a0", "b", "a1"]
    assert jobs.limits() == [LimitState("embed", 3, 2, 3, {"acme": 2, "globex": 1}, claimable=1)]
    jobs.limit("embed", per_partition=2)
    assert claimed(jobs, 9) == []
    jobs.remove_limit("embed")
    assert jobs.limits() == []
    assert claimed(jobs, 9) == ["a2"]


def test_limit_and_pause_of_a_type_keep_each_other(jobs: Jobs) -> None:
    jobs.set_limit("embed", 4, paused=True)
    jobs.limit("embed", per_partition=1)
    assert jobs.limits() == [LimitState("embed", None, 1)]
    jobs.submit("embed", job_id="a", partition="acme")
    assert claimed(jobs, 1) == []
    jobs.set_limit("embed", 4)
    assert jobs.limits() == [LimitState("embed", 4, 1, claimable=1)]
    assert claimed(jobs, 1) == ["a"]


def test_limit_and_pause_at_once_keep_each_other(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    set_limit = type(jobs.store).set_limit
    others = [(KEEP, True, KEEP), (KEEP, KEEP, 2), (5, KEEP, KEEP), (KEEP, False, KEEP)]

    async def set_after_another(store: Store, key: str, *values: Any) -> None:
        await set_limit(store, key, *others.pop(0))  # type: ignore[arg-type]
        await set_limit(store, key, *values)

    monkeypatch.setattr(type(jobs.store), "set_limit", set_after_another)
    jobs.limit("embed", running=3)
    assert run_sync(jobs.store.limits()) == {"embed": Limit(3, True, None)}
    jobs.set_limit("embed", 4)
    assert run_sync(jobs.store.limits()) == {"embed": Limit(4, False, 2)}
    jobs.set_limit("embed", KEEP, paused=True)
    assert run_sync(jobs.store.limits()) == {"embed": Limit(5, True, 2)}
    jobs.set_limit("embed", None, paused=KEEP)
    assert run_sync(jobs.store.limits()) == {"embed": Limit(None, False, 2)}


@pytest.mark.parametrize(
    ("key", "options", "text"),
    [
        ("embed", {"running": -1}, "running: -1 must be a whole number from 0"),
        ("embed", {"per_partition": 0}, "per_partition: 0 must be a whole number from 1"),
        ("embed", {"running": True}, "running"),
        ("embed", {"running": 2.5}, "running"),
        ("embed", {"rate": "500"}, "rate: '500' is not a rate; use starts per period, for example '500/min'"),
        ("embed", {"rate": "0/s"}, "rate"),
        ("embed", {"rate": "-1/s"}, "rate"),
        ("embed", {"rate": "5/month"}, "rate: '5/month' is not a rate; use starts per period"),
        ("embed", {"rate": "1000000000/s"}, "rate: '1000000000/s' must be 1 to 1000000 starts"),
        ("embed", {"rate": "5/" + "9" * 10_000 + "s"}, "rate"),
        ("embed", {"rate": "1/500ms"}, "whole number of seconds"),
        ("embed", {"rate": 500}, "rate"),
        ("embed", {}, r"running: give running, per_partition or rate; remove_limit\(key\) removes a limit"),
        ("", {"running": 1}, "key"),
        ("x" * 129, {"running": 1}, "key"),
    ],
)
def test_invalid_limit_is_refused(jobs: Jobs, key: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInputError, match=text) as raised:
        jobs.limit(key, **options)
    assert "\n" not in str(raised.value)
    assert jobs.limits() == []


def test_partition_that_is_too_long_is_refused(jobs: Jobs) -> None:
    with pytest.raises(InvalidInputError, match=r"partition.*128 bytes") as raised:
        jobs.submit("embed", job_id="a", partition="x" * 10_000)
    assert len(str(raised.value)) < 250
    assert jobs.get_job("a") is None


def test_async_api_sets_limits(every_store: Store) -> None:
    async def scenario() -> list[LimitState]:
        jobs = AsyncJobs(every_store.with_blocking(blocking=False))  # type: ignore[attr-defined]
        await jobs.limit("embed", running=0, rate="3/s")
        await jobs.close_gate("embed", "1h")
        await jobs.open_gate("embed")
        found = await jobs.limits()
        await jobs.remove_limit("embed")
        assert await jobs.limits() == []
        await jobs.close()
        return found

    assert asyncio.run(scenario()) == [LimitState("embed", 0, rate="3/s")]


@pytest.mark.parametrize(
    ("text", "shown", "spacing", "at_once"),
    [
        ("500/min", "500/min", 120_000, 1),
        ("500 / minute", "500/min", 120_000, 1),
        ("200/s", "200/s", 5_000, 10),
        ("7/s", "7/s", 142_858, 1),
        ("1000/15m", "1000/900s", 900_000, 1),
        ("1/day", "1/d", 86_400_000_000, 1),
        ("30/1h30m", "30/5400s", 180_000_000, 1),
    ],
)
def test_rate_is_read(text: str, shown: str, spacing: int, at_once: int) -> None:
    rate = Rate.parse(text)
    assert (str(rate), rate.spacing, rate.admitted(0, 10**15)) == (shown, spacing, at_once)
    assert Rate.parse(shown) == rate


def test_clock_that_was_set_back_does_not_hold_a_rate() -> None:
    rate = Rate.parse("1/min")
    limit = Limit(rate=rate).started(10**15)
    assert limit.opens_at(10**15) == 10**15 + 60_000_000
    before = 10**15 - 3_600_000_000
    assert (limit.opens_at(before), limit.admitted(before)) == (before, 1)
    assert limit.started(before).opens == before + 60_000_000


def test_rate_and_gate_hold_and_are_listed(jobs: Jobs) -> None:
    jobs.limit("embed", rate="1/h")
    for name in ("a", "b"):
        jobs.submit("embed", job_id=name)
    assert claimed(jobs, 9) == ["a"]
    assert jobs.limits() == [LimitState("embed", leases=1, rate="1/h", claimable=1)]
    jobs.limit("embed", running=5)
    jobs.close_gate("embed", "1h")
    (state,) = jobs.limits()
    assert state.gate_until is not None
    assert state.gate_until > datetime.now(UTC).isoformat()
    assert claimed(jobs, 9) == []
    jobs.remove_limit("embed")
    assert claimed(jobs, 9) == []
    jobs.open_gate("embed")
    assert (claimed(jobs, 9), jobs.limits()) == (["b"], [])


@pytest.mark.parametrize(("key", "delay"), [("", "1s"), ("x" * 10_000, "1s"), ("a", -1), ("a", "soon"), ("a", 1e300)])
def test_invalid_gate_is_refused(jobs: Jobs, key: str, delay: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"key|delay") as raised:
        jobs.close_gate(key, delay)
    assert len(str(raised.value)) < 250
    with pytest.raises(InvalidInputError, match=r"gate|delay"):
        Snooze(delay, gate=key)
    assert jobs.limits() == []
