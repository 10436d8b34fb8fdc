"""Schedules over HTTP: what each key may see and do, and the client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from milepost import AsyncClient, AsyncJobs, AsyncRun, InvalidInputError, MilepostError, Schedule, ScheduleNotFoundError
from milepost.web import auth
from milepost.web.app import create_app
from milepost.web.security.api_keys import ApiKeyStore
from milepost.worker.registry import publish, published_type


@pytest.fixture
async def jobs() -> AsyncIterator[AsyncJobs]:
    jobs = AsyncJobs("memory://")

    @jobs.job("reindex")
    async def reindex(run: AsyncRun, index: str = "docs") -> None: ...

    jobs.worker()
    await publish(jobs.store, [published_type(handler) for handler in jobs.handlers.values()])
    yield jobs
    await jobs.close()


async def caller(jobs: AsyncJobs, *scopes: str, **limits: Any) -> AsyncClient:
    """Return a client with a new key."""
    _, secret = await ApiKeyStore(jobs.store).create(
        "k", scopes or ("jobs:read", "jobs:write", "jobs:delete"), **limits
    )
    transport = httpx.ASGITransport(create_app(jobs, auth=auth.api_keys()))
    return AsyncClient("http://server", key=secret, transport=transport)


async def test_client_has_the_methods_of_jobs(jobs: AsyncJobs) -> None:
    client = await caller(jobs)
    made = await client.add_schedule("mail", "reindex", every="1h", params={"index": "mail"}, options={"priority": 5})
    assert (made.every, made.params, len(made.upcoming)) == (3600.0, {"index": "mail"}, 5)
    assert made == await client.get_schedule("mail")
    assert await client.list_schedules() == [made]
    assert (await client.pause_schedule("mail")).paused == "user"
    assert (await client.resume_schedule("mail")).paused is None
    job = await client.fire_schedule("mail")
    assert (job.schedule, job.priority, job.origin, job.params) == ("mail", 5, "api", {"index": "mail"})
    await client.remove_schedule("mail")
    with pytest.raises(ScheduleNotFoundError, match="Schedule mail not found"):
        await client.get_schedule("mail")
    with pytest.raises(InvalidInputError, match="cron: '0 0 31 2 \\*': bad day-of-month"):
        await client.add_schedule("bad", "reindex", cron="0 0 31 2 *")
    with pytest.raises(InvalidInputError, match=r"options\.job_id: is not an option of a schedule"):
        await client.add_schedule("bad", "reindex", every=60, options={"job_id": "x"})
    assert await jobs.list_schedules() == []


async def test_jobs_of_a_schedule_have_a_budget(jobs: AsyncJobs) -> None:
    client = await caller(jobs)
    options = {"budget": {"usd": 0.5}, "on_budget": "ask", "children": "keep"}
    await client.add_schedule("mail", "reindex", every="1h", options=options)
    job = await client.fire_schedule("mail")
    assert (await client.job_usage(job.job_id)).budget == {"usd": 0.5}


async def test_metric_says_how_late_a_tick_is(jobs: AsyncJobs) -> None:
    await jobs.add_schedule("mail", "reindex", every="1h")
    due = await jobs.add_schedule("due", "reindex", every="1h")
    paused = replace(await jobs.add_schedule("off", "reindex", every="1h"), paused="user")
    for one in (due, paused):
        [item] = await jobs.store.kv_scan(one.key)
        stored = replace(Schedule.from_text(item.value), paused=one.paused, next_at=one.created_at - timedelta(days=1))
        await jobs.store.kv_put(one.key, stored.to_text())
    transport = httpx.ASGITransport(create_app(jobs, auth=auth.none()))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as web:
        lines = (await web.get("/metrics")).text.splitlines()
    late = dict(line.rsplit(" ", 1) for line in lines if line.startswith("milepost_schedule_late_seconds{"))
    assert late.keys() == {f'milepost_schedule_late_seconds{{schedule="{name}"}}' for name in ("mail", "due")}
    assert float(late['milepost_schedule_late_seconds{schedule="mail"}']) == 0
    assert 86_400 <= float(late['milepost_schedule_late_seconds{schedule="due"}']) < 2 * 86_400


async def test_key_with_labels_sees_only_its_schedules(jobs: AsyncJobs) -> None:
    ana, bob = await caller(jobs, labels={"team": "a"}), await caller(jobs, labels={"team": "b"})
    made = await ana.add_schedule("mail", "reindex", every=3600)
    assert (made.labels, made.created_by is not None) == ({"team": "a"}, True)
    assert await bob.list_schedules() == []
    for call in (bob.get_schedule, bob.pause_schedule, bob.resume_schedule, bob.fire_schedule, bob.remove_schedule):
        with pytest.raises(ScheduleNotFoundError, match="Schedule mail not found"):
            await call("mail")
    with pytest.raises(ValueError, match="in use by a schedule that this key may not see"):
        await bob.add_schedule("mail", "reindex", every=60)
    with pytest.raises(InvalidInputError, match=r"labels\.team: must be 'b'"):
        await bob.add_schedule("more", "reindex", every=60, options={"labels": {"team": "a"}})
    assert (await jobs.get_schedule("mail")).every == 3600
    assert (await ana.fire_schedule("mail")).labels == {"team": "a"}


async def test_key_for_other_types_starts_no_jobs(jobs: AsyncJobs) -> None:
    await jobs.add_schedule("mail", "reindex", every=3600)
    other = await caller(jobs, types=("summary",))
    for call in (
        other.fire_schedule("mail"),
        other.resume_schedule("mail"),
        other.add_schedule("x", "reindex", every=60),
    ):
        with pytest.raises(Exception, match="may not submit or retry jobs of type"):
            await call
    assert await jobs.count_jobs() == 0
    assert [one.name for one in await jobs.list_schedules()] == ["mail"]


async def test_key_that_resumes_takes_over_from_ended_key(jobs: AsyncJobs) -> None:
    first, second = await caller(jobs), await caller(jobs)
    made = await first.add_schedule("mail", "reindex", every=3600)
    item = await jobs.store.kv_get(made.key)
    assert item is not None
    await jobs.store.kv_put(made.key, replace(Schedule.from_text(item.value), paused="key_ended").to_text())
    resumed = await second.resume_schedule("mail")
    assert (resumed.paused, resumed.created_by) == (
        None,
        (await second.add_schedule("x", "reindex", every=60)).created_by,
    )


async def test_schedules_of_one_key_are_limited(jobs: AsyncJobs) -> None:
    ana, other = await caller(jobs), await caller(jobs)
    made = await ana.add_schedule("s0", "reindex", every=3600)
    for number in range(1, 100):
        await jobs.store.kv_put(f"schedule/s{number}", replace(made, name=f"s{number}").to_text())
    with pytest.raises(MilepostError, match=r"Too many schedules of this key or user \(limit 100\)"):
        await ana.add_schedule("s100", "reindex", every=3600)
    assert (await ana.add_schedule("s0", "reindex", every=60)).every == 60
    assert (await other.add_schedule("s100", "reindex", every=3600)).every == 3600


async def test_schedule_that_appears_during_a_put_is_not_changed(
    jobs: AsyncJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another tenant takes the name between the check and the write."""
    ana, bob = await caller(jobs, labels={"team": "a"}), await caller(jobs, labels={"team": "b"})
    write = jobs.store.kv_put

    async def late(key: str, *args: Any, **kwargs: Any) -> int | None:
        if key == "schedule/mail":
            monkeypatch.setattr(jobs.store, "kv_put", write)
            await ana.add_schedule("mail", "reindex", every=3600)
        return await write(key, *args, **kwargs)

    monkeypatch.setattr(jobs.store, "kv_put", late)
    with pytest.raises(ValueError, match="in use by a schedule that this key may not see"):
        await bob.add_schedule("mail", "reindex", every=60)
    assert (await jobs.get_schedule("mail")).labels == {"team": "a"}
