"""What keeps a retry of a job from succeeding, over HTTP as a manager says it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from milepost import AsyncClient, AsyncJobManager, AsyncJobs, AsyncRun, JobNotFoundError, MilepostError
from milepost.web import auth
from milepost.web.app import create_app
from milepost.web.security.api_keys import ApiKeyStore
from tests.waiting import PATIENCE


async def client(manager: AsyncJobManager, *scopes: str, **limits: Any) -> AsyncClient:
    """Return a client with a new key."""
    _, secret = await ApiKeyStore(manager.store).create("k", scopes or ("jobs:read",), **limits)
    transport = httpx.ASGITransport(create_app(manager, auth=auth.api_keys()))
    return AsyncClient("http://server", key=secret, transport=transport)


async def cancelled(manager: AsyncJobManager, **options: Any) -> str:
    """Return the id of a cancelled job."""
    job = await manager.enqueue("report", **options)
    await manager.cancel_job(job.job_id)
    return job.job_id


async def test_check_says_what_the_retry_says(manager: AsyncJobManager) -> None:
    caller = await client(manager, "jobs:read", "jobs:write")
    first, open_job = await cancelled(manager, unique_key="k"), await manager.enqueue("report")
    newer = await cancelled(manager, unique_key="k")
    async with manager.track("tracked") as run:
        pass
    for job_id, reason, other in (
        (first, "unique_key", newer), (open_job.job_id, "status", None), (run.job_id, "status", None)
    ):  # fmt: skip
        found = await caller.retry_check(job_id)
        assert found == await manager.retry_check(job_id)
        assert (found.reason, found.other) == (reason, other)
        with pytest.raises(MilepostError) as refused:
            await caller.retry_job(job_id)
        assert found.reason == "status" or str(refused.value) == found.text
    elsewhere = await manager.enqueue("other", unique_key="k")
    assert (await caller.retry_check(newer)).other == elsewhere.job_id
    await manager.delete_job(elsewhere.job_id)
    assert (await caller.retry_check(newer)).reason is None
    assert (await caller.retry_job(newer)).status == "pending"
    for one in (manager, caller):
        with pytest.raises(JobNotFoundError):
            await one.retry_check("none")


async def test_restricted_key_gets_no_id_of_a_job_that_it_may_not_see(memory: AsyncJobManager) -> None:
    mine = await cancelled(memory, unique_key="k", labels={"tenant": "acme"})
    other = await cancelled(memory, unique_key="k", labels={"tenant": "zoo"})
    found = await (await client(memory, labels={"tenant": "acme"})).retry_check(mine)
    assert (found.reason, found.other, other in found.text) == ("unique_key", None, False)
    with pytest.raises(JobNotFoundError):
        await (await client(memory, labels={"tenant": "acme"})).retry_check(other)


async def test_restricted_key_gets_no_budget_of_a_job_that_it_may_not_see(memory: AsyncJobManager) -> None:
    jobs = AsyncJobs(memory.store)

    @jobs.job("page", labels={"tenant": "acme"})
    async def page(run: AsyncRun) -> None:
        run.add_usage(usd=12.5)
        raise ValueError("no page")

    @jobs.job("nightly")
    async def nightly(run: AsyncRun) -> None:
        run.submit_child("a", page)
        await asked.wait()

    asked = asyncio.Event()
    root = await jobs.submit(nightly.options(budget={"usd": 10}))
    async with jobs.run_workers():
        async with asyncio.timeout(PATIENCE):
            while not (failed := await memory.list_jobs(job_type="page", status="failed")):
                await asyncio.sleep(0.01)
        child = failed[0].job_id
        assert "12.5" in (await memory.retry_check(child)).text
        found = await (await client(memory, labels={"tenant": "acme"})).retry_check(child)
        asked.set()
    assert (found.reason, found.other) == ("budget", None)
    assert not [shown for shown in ("12.5", root.job_id) if shown in found.text.replace(child, "")]
