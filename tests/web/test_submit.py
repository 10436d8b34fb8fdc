"""POST /api/jobs: what it creates, refuses and repeats, on each kind of store."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from milepost import AsyncJobManager, AsyncJobs, StoreUnavailableError
from milepost.web import auth, create_app, create_router
from milepost.web.security.api_keys import ApiKeyStore
from tests.web.conftest import client_of, context_of

BODY = {"job_type": "reindex", "params": {"index": "docs"}}


async def test_submit_returns_201_with_location(app: httpx.AsyncClient) -> None:
    answer = await app.post("/api/jobs", json={**BODY, "priority": 5, "labels": {"owner": "ana"}})
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/api/jobs/{job['job_id']}"
    assert (job["priority"], job["labels"], job["max_attempts"]) == (5, {"owner": "ana"}, 3)
    assert (await app.get(answer.headers["location"])).json()["job_id"] == job["job_id"]


async def test_location_includes_the_mount_prefix(memory: AsyncJobManager) -> None:
    app = FastAPI()
    app.include_router(create_router(memory, auth=auth.api_keys()), prefix="/included")
    app.mount("/mounted", create_app(memory, auth=auth.api_keys()))
    _, secret = await ApiKeyStore(memory.store).create("test", ["jobs:read", "jobs:write"])
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t", headers=headers) as web:
        for prefix in ("/included", "/mounted"):
            made = await web.post(f"{prefix}/api/jobs", json={"job_type": "own", "run_by": "manual"})
            place = made.headers["location"]
            assert place == f"{prefix}/api/jobs/{made.json()['job_id']}"
            batch = await web.post(f"{prefix}/api/batches", json={})
            assert batch.headers["location"] == f"{prefix}/api/jobs/{batch.json()['job_id']}"
            shared = (await web.post(f"{place}/share")).json()
            assert shared["path"] == f"{place}?share={shared['token']}"
            assert (await web.get(shared["path"], headers={"Authorization": ""})).json()["job_id"] in place


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"job_type": "unheard"}, "job_type: no worker has published 'unheard'"),
        ({**BODY, "params": {}}, "index: "),
        ({**BODY, "params": {"index": 1}}, "index: "),
        ({**BODY, "colour": "red"}, "colour: is not a known field; remove it"),
        ({**BODY, "priority": 101}, "priority: must be less than or equal to 100"),
        ({**BODY, "job_id": "a b"}, "job_id: must be 1 to 128 of the characters A-Z a-z 0-9 . _ : -"),
        ({**BODY, "not_before": 5}, "not_before: must be an ISO 8601 string, e.g. "),
        ({**BODY, "delay": -1}, "delay: must be greater than or equal to 0"),
        ({**BODY, "delay": "soon"}, "delay: 'soon' is not a duration; use 90, '90s', '2h' or '1h30m'"),
        ({**BODY, "delay": True}, "delay: "),
        ({**BODY, "timeout": "99w"}, "timeout: must be less than or equal to 31536000"),
        ({**BODY, "delay": 1, "not_before": "2026-01-01T00:00:00Z"}, "delay: cannot be combined with not_before"),
        ({**BODY, "not_after": "2026-01-01T00:00:00"}, "not_after: "),
        ({**BODY, "stale_after": 5}, "stale_after: not supported with run_by 'worker'; remove it"),
        ({}, "job_type: is required"),
    ],
)
async def test_invalid_submit_is_422_with_field(
    app: httpx.AsyncClient, jobs: AsyncJobs, body: dict[str, Any], says: str
) -> None:
    answer = await app.post("/api/jobs", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(says)
    assert await jobs.count_jobs() == 0


@pytest.mark.parametrize("delay", ["1h30m", "5400", 5400, 5400.0])
async def test_delay_is_seconds_or_text_as_in_python(app: httpx.AsyncClient, delay: object) -> None:
    made = (await app.post("/api/jobs", json={**BODY, "delay": delay, "timeout": "2h"})).json()
    wait = datetime.fromisoformat(made["not_before"]) - datetime.fromisoformat(made["created_at"])
    assert round(wait.total_seconds()) == 5400


async def test_existing_id_and_duplicate_are_409(app: httpx.AsyncClient) -> None:
    assert (await app.post("/api/jobs", json={**BODY, "job_id": "one", "unique_key": "k"})).status_code == 201
    assert (await app.post("/api/jobs", json={**BODY, "job_id": "one"})).status_code == 409
    again = await app.post("/api/jobs", json={**BODY, "unique_key": "k"})
    assert (again.status_code, again.json()["job_id"]) == (200, "one")
    refused = await app.post("/api/jobs", json={**BODY, "unique_key": "k", "on_duplicate": "refuse"})
    assert refused.status_code == 409
    newer = await app.post("/api/jobs", json={**BODY, "unique_key": "k", "on_duplicate": "supersede"})
    assert newer.status_code == 201
    assert (await app.get("/api/jobs/one")).json()["status"] == "cancelled"


async def test_same_idempotency_key_returns_the_same_job(app: httpx.AsyncClient, jobs: AsyncJobs) -> None:
    headers = {"Idempotency-Key": "abc"}
    first = await app.post("/api/jobs", json=BODY, headers=headers)
    again = await app.post("/api/jobs", json=BODY, headers=headers)
    other = await app.post("/api/jobs", json={**BODY, "priority": 1}, headers=headers)
    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert await jobs.count_jobs() == 1


async def test_concurrent_requests_with_one_key_create_one_job(app: httpx.AsyncClient, jobs: AsyncJobs) -> None:
    headers = {"Idempotency-Key": "race"}
    answers = await asyncio.gather(*(app.post("/api/jobs", json=BODY, headers=headers) for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert await jobs.count_jobs() == 1


async def test_repeated_submit_does_not_supersede_itself(
    app: httpx.AsyncClient, jobs: AsyncJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milepost.web.api.submit.IN_PROGRESS_MICROS", 0)
    put, puts = jobs.store.kv_put, list[str]()

    async def once(key: str, *args: Any, **options: Any) -> Any:
        puts.append(key)
        if key.startswith("idempotency/") and len(puts) == 2:
            raise StoreUnavailableError("it went away when the job was recorded")
        return await put(key, *args, **options)

    monkeypatch.setattr(jobs.store, "kv_put", once)
    body, headers = {**BODY, "unique_key": "k", "on_duplicate": "supersede"}, {"Idempotency-Key": "x"}
    answers = [await app.post("/api/jobs", json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [503, 201]
    assert answers[1].json()["status"] == "pending"
    assert await jobs.count_jobs() == 1


async def test_lost_submit_is_repeated_after_clock_stepped_back(
    app: httpx.AsyncClient, jobs: AsyncJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: Any, **options: Any) -> Any:
        raise StoreUnavailableError("it went away when the job was recorded")

    real_now = jobs.store.now

    async def ahead() -> int:
        return await real_now() + 600_000_000

    headers = {"Idempotency-Key": "ahead"}
    with monkeypatch.context() as patches:
        patches.setattr(jobs.store, "now", ahead)
        patches.setattr(jobs.store, "apply", fail)
        assert (await app.post("/api/jobs", json=BODY, headers=headers)).status_code == 503
    assert (await app.post("/api/jobs", json=BODY, headers=headers)).status_code == 201
    assert await jobs.count_jobs() == 1


async def test_refused_submit_frees_its_idempotency_key(app: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "later"}
    assert (await app.post("/api/jobs", json={"job_type": "unheard"}, headers=headers)).status_code == 422
    assert (await app.post("/api/jobs", json=BODY, headers=headers)).status_code == 201


async def test_prefer_wait_returns_the_ended_job(app: httpx.AsyncClient, jobs: AsyncJobs) -> None:
    async with jobs.run_workers():
        prefers = [("Prefer", "respond-async"), ("Prefer", "wait=20")]  # equal to a single header line
        answer = await app.post("/api/jobs", json=BODY, headers=prefers)
    assert answer.status_code == 200
    assert answer.json()["status"] == "completed"


async def test_submit_succeeds_when_waiting_fails(memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    async with client_of(memory) as client:
        body, headers = {"job_type": "own", "run_by": "manual"}, {"Prefer": "wait=20"}
        context = context_of(client)
        context.hub.close()  # the server is shutting down
        answer = await client.post("/api/jobs", json=body, headers=headers)
        assert (answer.status_code, "preference-applied" in answer.headers) == (201, False)
        context.hub.open()

        async def away(*_: Any, **__: Any) -> Any:
            raise StoreUnavailableError("it went away a moment ago")

        monkeypatch.setattr(memory.store, "get", away)
        answer = await client.post("/api/jobs", json=body, headers=headers)
        assert answer.status_code == 201
    assert await memory.count_jobs() == 2
