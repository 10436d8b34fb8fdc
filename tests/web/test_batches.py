"""Batches over HTTP: the clients, and what each key may see and do."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from milepost import AsyncClient, AsyncJobs, AsyncRun, Client, InvalidInputError, JobNotFoundError
from milepost.app.batches import AsyncBatch
from milepost.client import AccessDeniedError
from milepost.core.errors import DuplicateJobError, IllegalTransitionError
from milepost.core.values import MemberCounts
from milepost.settings import Settings
from milepost.web import auth
from milepost.web.api.batches import ClosedBatch
from milepost.web.app import create_app
from milepost.web.security.api_keys import ApiKeyStore
from milepost.worker.registry import publish, published_type
from tests.waiting import PATIENCE
from tests.web.server import Server


@pytest.fixture
async def jobs() -> AsyncIterator[AsyncJobs]:
    jobs = AsyncJobs("memory://")

    @jobs.job("load")
    async def load(run: AsyncRun, path: str = "") -> str:
        return path

    jobs.worker()
    await publish(jobs.store, [published_type(handler) for handler in jobs.handlers.values()])
    yield jobs
    await jobs.close()


async def caller(jobs: AsyncJobs, *scopes: str, **limits: Any) -> AsyncClient:
    """Return a client with a new key."""
    _, secret = await ApiKeyStore(jobs.store).create("k", scopes or ("jobs:read", "jobs:write"), **limits)
    transport = httpx.ASGITransport(create_app(jobs, auth=auth.api_keys()))
    return AsyncClient("http://server", key=secret, transport=transport)


async def test_batch_of_a_client_counts_its_jobs_and_ends(jobs: AsyncJobs) -> None:
    client = await caller(jobs)
    async with client.batch("import", labels={"tenant": "acme"}) as batch:
        first = await batch.submit("load", {"path": "a"}, labels={"n": "1"})
        others = await batch.submit_many("load", [{"path": "b"}, {"path": "c"}])
        last = await batch.then("load", {"path": "last"})
        await batch.report()
        assert await batch.counts() == MemberCounts(total=3, open=3)
    assert (first.group, first.labels, len(others)) == ("import", {"tenant": "acme", "n": "1"}, 2)
    assert last.waiting_for is not None
    with pytest.raises(IllegalTransitionError, match="Batch import is closed; open one with another name"):
        await client.batch("import").open()
    async with jobs.run_workers():
        assert (await batch.wait(PATIENCE)).status == "completed"
        assert (await client.wait(last.job_id, 30)).result == "last"
    assert await client.batch("import").counts() == MemberCounts(total=3, completed=3)
    found = await client.request("GET", "/api/batches/import")
    assert (found["status"], found["closed"], found["progress"]) == ("completed", True, 1.0)


async def interrupted(batch: AsyncBatch) -> None:
    """Submit a job in a block that raises."""
    async with batch:
        await batch.submit("load")
        raise RuntimeError("no more files")


async def test_handle_of_a_client_adds_jobs_to_an_open_batch_only(jobs: AsyncJobs) -> None:
    client, writer = await caller(jobs), await caller(jobs, "jobs:write")
    for call in (client.batch("import").submit("load"), client.batch("import").submit_many("load", [{}])):
        with pytest.raises(JobNotFoundError):
            await call
    assert await jobs.count_jobs() == 0
    await client.batch("import").open()
    for one in (client, writer):
        assert (await one.batch("import").submit("load")).group == "import"


async def test_error_in_the_block_cancels_the_jobs(jobs: AsyncJobs) -> None:
    client = await caller(jobs)
    kept = client.batch("kept", on_error="keep")
    for batch in (client.batch("failed"), kept):
        with pytest.raises(RuntimeError):
            await interrupted(batch)
    assert await client.batch("failed").counts() == MemberCounts(total=1, cancelled=1)
    assert await kept.counts() == MemberCounts(total=1, open=1)
    record = await client.get_job("failed")
    assert record is not None
    assert (record.status.value, record.error) == ("failed", "RuntimeError: no more files")


@pytest.mark.parametrize("how", ["cancel", "bulk by ids", "bulk by filter"])
async def test_cancel_of_a_batch_cancels_its_jobs(jobs: AsyncJobs, how: str) -> None:
    client = await caller(jobs, "jobs:read", "jobs:write", "jobs:cancel")
    async with client.batch("b") as batch:
        await batch.submit_many("load", [{}] * 3)
        other = await client.submit("load", {})
    if how == "cancel":
        await client.cancel_job("b", "wrong files")
    else:
        chosen = {"ids": ["b"]} if "ids" in how else {"q": "group:b"}
        done = await client.request("POST", "/api/jobs/bulk", body={"action": "cancel", **chosen})
        assert {one["outcome"] for one in done["outcomes"]} == {"done"}
        assert done["done"] == (1 if "ids" in how else 4)
    assert await batch.counts() == MemberCounts(total=3, cancelled=3)
    assert (await client.wait("b", PATIENCE)).status == "cancelled"
    assert (await client.get_job(other.job_id)).status == "pending"  # type: ignore[union-attr]


async def test_key_with_labels_sees_only_its_batches(jobs: AsyncJobs) -> None:
    ana, bob = await caller(jobs, labels={"team": "a"}), await caller(jobs, labels={"team": "b"})
    with pytest.raises(InvalidInputError, match="name: cannot be set with a key that is restricted to labels; omit it"):
        await ana.batch("import").open()
    made = await ana.request("POST", "/api/batches", body={})
    assert (made["job_type"], made["status"], made["labels"]) == ("batch", "running", {"team": "a"})
    name = made["job_id"]
    await ana.batch(name).open()  # continues it
    await ana.submit("load", group=name)
    with pytest.raises(JobNotFoundError):
        await bob.batch(name).counts()
    with pytest.raises(JobNotFoundError):
        await bob.batch(name).close()
    with pytest.raises(InvalidInputError, match="name: cannot be set"):
        await bob.batch(name).open()
    with pytest.raises(InvalidInputError, match="is in use by jobs that this key may not see"):
        await bob.submit("load", group=name)
    with pytest.raises(InvalidInputError, match=r"labels\.team: must be 'b'"):
        await bob.request("POST", "/api/batches", body={"labels": {"team": "a"}})
    assert await ana.batch(name).counts() == MemberCounts(total=1, open=1)


async def test_key_for_other_types_opens_no_batch(jobs: AsyncJobs) -> None:
    limited = await caller(jobs, types=("load",))
    with pytest.raises(AccessDeniedError, match="may not submit or retry jobs of type 'batch'"):
        await limited.batch("b").open()
    assert await jobs.count_jobs() == 0


async def test_other_jobs_are_no_batches(jobs: AsyncJobs) -> None:
    client = await caller(jobs)
    await client.create_job("mine", "generic")
    with pytest.raises(DuplicateJobError, match="Job mine already exists, and is not a batch"):
        await client.batch("mine").open()
    with pytest.raises(JobNotFoundError, match="mine"):
        await client.batch("mine").counts()
    with pytest.raises(InvalidInputError, match="name"):
        await client.request("POST", "/api/batches", body={"name": "a/b\n"})


async def test_heartbeat_at_the_limit_of_pending_jobs_is_accepted() -> None:
    """Regression: a batch that had submitted as many jobs as its key may have pending was soon flagged as stalled."""
    jobs = AsyncJobs("memory://", options=Settings(max_pending=1))
    _, secret = await ApiKeyStore(jobs.store).create("k", ("jobs:write",))
    transport = httpx.ASGITransport(create_app(jobs, auth=auth.api_keys()))
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://server", headers=headers) as web:
        answers = [
            await web.post("/api/batches", json={"name": "import"}),
            await web.post("/api/jobs", json={"job_type": "own", "run_by": "manual", "group": "import"}),
            await web.post("/api/batches", json={"name": "import"}),
            await web.post("/api/batches", json={"name": "other"}),
        ]
    assert [answer.status_code for answer in answers] == [201, 201, 200, 429]
    await jobs.close()


async def test_record_outside_of_its_group_is_no_batch(jobs: AsyncJobs) -> None:
    """Regression: the counts of a `batch` record that a caller had made were -1."""
    client = await caller(jobs)
    await client.create_job("mine", "batch")
    with pytest.raises(JobNotFoundError):
        await client.batch("mine").counts()
    with pytest.raises(JobNotFoundError):
        await jobs.batch("mine").counts()
    with pytest.raises(DuplicateJobError, match="is not a batch"):
        await client.batch("mine").open()


async def test_key_without_read_closes_a_batch_and_sees_no_counts(jobs: AsyncJobs) -> None:
    writer = await caller(jobs, "jobs:write")
    async with writer.batch("import"):
        await writer.submit("load", group="import")
    again = await writer.request("POST", "/api/batches/import/close", body={})
    assert again == {"name": "import", "status": "running", "closed": True, "progress": 0.0}
    assert set(again) == {name for name, field in ClosedBatch.model_fields.items() if field.is_required()}
    with pytest.raises(AccessDeniedError):
        await writer.batch("import").counts()


async def test_client_refuses_handlers(jobs: AsyncJobs) -> None:
    client, handler = await caller(jobs), jobs.handlers["load"]
    async with client.batch("import") as batch:
        for refused in (batch.submit(handler), batch.then(handler), batch.submit_many(handler, [{}])):
            with pytest.raises(InvalidInputError, match="job_type: must be the name of a type, such as 'load'"):
                await refused


async def test_forked_child_does_not_close_a_clients_batch(jobs: AsyncJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await caller(jobs)
    batch = client.batch("import")
    await batch.open()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        await batch.close()
    await batch.submit("load")
    await batch.close()
    assert await batch.counts() == MemberCounts(total=1, open=1)


def test_blocking_client_has_batches() -> None:
    with Server() as server, Client(server.url) as client:
        with client.batch("import", labels={"tenant": "acme"}) as batch:
            job = client.create_job(group=batch.name)
            assert batch.counts() == MemberCounts(total=1, open=1)
        client.update_job(job.job_id, "completed")
        ended = batch.wait(PATIENCE)
    assert (ended.status, ended.labels, ended.message) == ("completed", {"tenant": "acme"}, "1 job")
