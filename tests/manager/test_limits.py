"""Limits by limit key and partition, as users set them, on every store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from milepost import AsyncJobs, Jobs, Run
from milepost.core.errors import InvalidInputError
from milepost.core.limits import KEEP, LimitState
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
    assert jobs.limits() == [LimitState("embed", 3, 2)]
    assert claimed(jobs, 9) == ["a0", "b", "a1"]
    assert jobs.limits() == [LimitState("embed", 3, 2, 3, {"acme": 2, "globex": 1})]
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
    assert jobs.limits() == [LimitState("embed", 4, 1)]
    assert claimed(jobs, 1) == ["a"]


def test_limit_and_pause_at_once_keep_each_other(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    set_limit = type(jobs.store).set_limit
    others = [(KEEP, True, KEEP), (KEEP, KEEP, 2), (5, KEEP, KEEP), (KEEP, False, KEEP)]

    async def set_after_another(store: Store, key: str, *values: Any) -> None:
        await set_limit(store, key, *others.pop(0))  # type: ignore[arg-type]
        await set_limit(store, key, *values)

    monkeypatch.setattr(type(jobs.store), "set_limit", set_after_another)
    jobs.limit("embed", running=3)
    assert run_sync(jobs.store.limits()) == {"embed": (3, True, None)}
    jobs.set_limit("embed", 4)
    assert run_sync(jobs.store.limits()) == {"embed": (4, False, 2)}
    jobs.set_limit("embed", KEEP, paused=True)
    assert run_sync(jobs.store.limits()) == {"embed": (5, True, 2)}
    jobs.set_limit("embed", None, paused=KEEP)
    assert run_sync(jobs.store.limits()) == {"embed": (None, False, 2)}


@pytest.mark.parametrize(
    ("key", "options", "text"),
    [
        ("embed", {"running": -1}, "running: -1 must be a whole number from 0"),
        ("embed", {"per_partition": 0}, "per_partition: 0 must be a whole number from 1"),
        ("embed", {"running": True}, "running"),
        ("embed", {"running": 2.5}, "running"),
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
        await jobs.limit("embed", running=0)
        found = await jobs.limits()
        await jobs.remove_limit("embed")
        assert await jobs.limits() == []
        await jobs.close()
        return found

    assert asyncio.run(scenario()) == [LimitState("embed", 0)]
