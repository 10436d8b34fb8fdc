"""Numbers over a window: exact counts, near quantiles, the same from every server, and no job read without a filter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager, InvalidInputError, JobManager
from milepost.core.job import Job
from milepost.core.rollups import HOUR, MINUTE, Rollup, bucket_of
from milepost.core.serialization import from_micros
from milepost.query.statistics import History, summarise
from milepost.stores.protocol import Select
from tests.web.conftest import client_of, store_address

NOW = 1_764_072_000_000_000
"""A full hour, in microseconds."""


def rollup(ago: float, seconds: float, number: int = 1, status: str = "completed", job_type: str = "x") -> Rollup:
    """Record jobs that ended some seconds ago, in one minute."""
    at = (NOW - int(ago * 1_000_000)) // MINUTE * MINUTE
    bucket = bucket_of(int(seconds * 1_000_000))
    return Rollup(at, job_type, job_type, {status: number}, {status: {bucket: number}}, {bucket: number})


def test_counts_are_exact_and_quantiles_near() -> None:
    found = [
        rollup(ago * 60 + 1, seconds / 2, 7, "failed" if seconds % 4 == 0 else "completed")
        for ago in range(50)
        for seconds in range(1, 201)
    ]
    history = summarise(found, NOW, 3600, 60, hourly=False, complete=True)
    assert len(history.steps) == 60
    assert sum(step.completed for step in history.steps) == 50 * 150 * 7
    assert sum(step.failed for step in history.steps) == 50 * 50 * 7
    assert history.duration.count == history.wait.count == 50 * 200 * 7
    assert history.duration.p50 == pytest.approx(50, rel=0.1)
    assert history.duration.p95 == pytest.approx(95, rel=0.1)


@pytest.mark.parametrize(("count", "median", "high"), [(1, 1, 1), (2, 1, 2), (3, 2, 3), (20, 10, 19), (21, 11, 20)])
def test_quantiles_are_by_nearest_rank(count: int, median: int, high: int) -> None:
    """The median of an even number of jobs was the upper one of the middle."""
    found = summarise([rollup(30, 2.0**n) for n in range(1, count + 1)], NOW, 600, 60, hourly=False, complete=True)
    assert found.duration.p50 == pytest.approx(2.0**median, rel=0.1)
    assert found.duration.p95 == pytest.approx(2.0**high, rel=0.1)


def test_durations_leave_out_cancelled_jobs() -> None:
    found = [rollup(30, 2.0), rollup(30, 500.0, status="cancelled")]
    (of_type,) = summarise(found, NOW, 600, 60, hourly=False, complete=True).types
    assert (of_type.completed, of_type.cancelled) == (1, 1)
    assert (of_type.duration.count, of_type.wait.count) == (1, 2)
    assert of_type.duration.p95 == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize(
    ("window", "step", "steps", "shown"),
    [
        (3600, 60, 60, 60),
        (86_400, 900, 96, 900),
        (7 * 86_400, 7200, 84, 7200),
        (600, 1, 10, 60),
        (360 * 86_400, 86_400, 360, 86_400),
        (30, 30, 1, 60),
    ],
)
def test_each_window_has_its_steps(window: float, step: float, steps: int, shown: float) -> None:
    hourly = step >= 3600
    found = [rollup(max(window, 60) * 0.9 - 60, 1), rollup(max(window, 60) * 1.1 + 60, 1)]
    if hourly:
        found = [one._replace(at=one.at // HOUR * HOUR) for one in found]
    history = summarise(found, NOW, window, step, hourly=hourly, complete=True)
    assert (len(history.steps), history.step) == (steps, shown)
    assert sum(one.completed for one in history.steps) == 1


@pytest.mark.parametrize(("seconds", "hourly", "width"), [(25, False, 60), (1500, True, 3600)])
def test_step_begins_and_ends_with_a_minute_or_an_hour(seconds: int, hourly: bool, width: int) -> None:
    """A bar of the chart opened the jobs of other minutes than those that it counted."""
    one = rollup(-seconds, 1, 3)
    if hourly:
        one = one._replace(at=one.at // HOUR * HOUR)
    now = NOW + (seconds + 10) * 1_000_000
    history = summarise([one], now, 60 * width, width, hourly=hourly, complete=True)
    assert {step.at.timestamp() % width for step in history.steps} == {0}
    assert [(step.at, step.completed) for step in history.steps if step.completed] == [(from_micros(one.at), 3)]


def test_history_survives_json() -> None:
    history = summarise([rollup(30, 2.0), rollup(90, 3.0, 2, "failed")], NOW, 600, 60, hourly=False, complete=False)
    assert History.from_dict(history.to_dict()) == history
    empty = summarise([], NOW, 600, 60, hourly=False, complete=True)
    assert History.from_dict(empty.to_dict()) == empty


async def finish(manager: AsyncJobManager, status: str = "completed", **options: Any) -> None:
    """Create a manual job and update it to its end."""
    job = await manager.create_job(job_type="measured", **options)
    await manager.update_job(job.job_id, "running")
    await manager.update_job(job.job_id, status)


async def stats(client: httpx.AsyncClient, query: str = "") -> dict[str, Any]:
    """Return the statistics of the last hour."""
    shown: dict[str, Any] = (await client.get(f"/api/stats?window=1h&step=1h{query}")).json()
    return shown


async def test_unrestricted_stats_read_no_jobs(manager: AsyncJobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    selects: list[Select] = []
    select = manager.store.select

    async def counted(wanted: Select, *rest: Any) -> list[Job]:
        selects.append(wanted)
        return await select(wanted, *rest)

    for status in ("completed", "completed", "failed"):
        await finish(manager, status)
    monkeypatch.setattr(manager.store, "select", counted)
    async with client_of(manager) as client:
        shown = await stats(client)
    assert selects == []
    assert shown["counts"] == {"measured": {"completed": 2, "failed": 1}}
    assert sum(step["completed"] for step in shown["steps"]) == 2
    assert (shown["duration"]["count"], shown["complete"]) == (3, True)


async def test_stats_with_a_filter_count_the_jobs_that_match(manager: AsyncJobManager) -> None:
    for number in range(3):
        await finish(manager, labels={"n": str(number)})
    async with client_of(manager) as client:
        shown = await stats(client, "&q=label.n:1")
        assert (shown["counts"], shown["duration"]["count"]) == ({"measured": {"completed": 1}}, 1)
        assert (await stats(client, "&job_type=other"))["types"] == []
        assert (await stats(client, "&job_type=measured"))["types"][0]["completed"] == 3


async def test_two_servers_and_the_manager_agree(manager: AsyncJobManager) -> None:
    await finish(manager, "failed")
    await manager.delete_job((await manager.list_jobs())[0].job_id)
    async with client_of(manager) as one, client_of(manager) as other:
        shown = [await stats(client) for client in (one, other)]
    assert shown[0]["types"] == shown[1]["types"] == (await manager.history("1h", "1h")).to_dict()["types"]
    assert shown[0]["types"][0]["failed"] == 1, "also of a job that was deleted"


def test_blocking_manager_has_the_history(request: pytest.FixtureRequest) -> None:
    url, options = store_address("sqlite", request)
    manager = JobManager(url, options=options)
    with manager.track("work"):
        pass
    history = manager.history(3600, 60)
    assert [(one.job_type, one.completed, one.wait.count) for one in history.types] == [("work", 1, 1)]
    assert manager.history("1h", "1m", job_type="other").types == ()
    with pytest.raises(InvalidInputError, match="step"):
        manager.history("1h", 1)
    manager.close()


async def test_oldest_pending_job_has_its_wait_and_its_reason(manager: AsyncJobManager) -> None:
    async with client_of(manager) as client:
        assert (await stats(client))["oldest_pending"] is None
    later = await manager.enqueue("later", not_before=datetime.now(UTC) + timedelta(hours=1))
    first = await manager.enqueue("first", labels={"n": "1"})
    second = await manager.enqueue("second", labels={"n": "2"})
    async with client_of(manager) as client:
        shown = (await stats(client))["oldest_pending"]
        assert shown == {
            "job_id": first.job_id,
            "job_type": "first",
            "since": first.created_at.isoformat(),
            "activity": "No worker serves first",
        }
        assert (await stats(client, "&q=label.n:2"))["oldest_pending"]["job_id"] == second.job_id
        assert (await stats(client, "&q=type:later"))["oldest_pending"] is None, "its start time has not come"
        assert later.not_before is not None
