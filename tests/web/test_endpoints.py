"""All routes beyond the four original ones, on each kind of store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from milepost import AsyncJobManager, AsyncJobs, Run, StoreUnavailableError
from milepost.core.limits import KEEP, Limit
from milepost.core.transitions import plan_track
from milepost.run.sweeper import Sweeper
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Write
from milepost.web import auth, create_app, create_router
from milepost.web.security.api_keys import ApiKeyStore
from tests.web.conftest import client_of, context_of


@pytest.fixture
async def jobs(manager: AsyncJobManager) -> AsyncJobs:
    """Return an application with one job type that no worker runs."""
    jobs = AsyncJobs(manager.store, options=manager.settings)
    jobs.worker()  # so that no worker starts at the first submit

    @jobs.job("reindex", max_attempts=3)
    def reindex(run: Run, index: str, batch_size: int = 64) -> dict[str, Any]:
        """Re-embed every chunk of an index."""
        return {}

    return jobs


@pytest.fixture
async def app(jobs: AsyncJobs) -> Any:
    async with client_of(jobs) as client:
        yield client


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


async def test_etag_and_long_poll(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    job = await manager.create_job()
    tag = (await client.get(f"/api/jobs/{job.job_id}")).headers["etag"]
    assert tag == 'W/"v1"'
    same = await client.get(f"/api/jobs/{job.job_id}", headers={"If-None-Match": tag})
    assert (same.status_code, same.content) == (304, b"")
    headers = {"If-None-Match": tag, "Prefer": "wait=20"}
    polling = asyncio.create_task(client.get(f"/api/jobs/{job.job_id}", headers=headers))
    await asyncio.sleep(0.1)
    await manager.update_job(job.job_id, "running")
    changed = await polling
    assert (changed.status_code, changed.headers["etag"], changed.json()["status"]) == (200, 'W/"v2"', "running")


async def test_etag_with_common_prefix_does_not_match(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    job = await manager.create_job()
    answer = await client.get(f"/api/jobs/{job.job_id}", headers={"If-None-Match": 'W/"v11"'})
    assert answer.status_code == 200


async def test_pagination_by_link_returns_each_job_once(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    made = [(await manager.create_job(labels={"n": str(i)})).job_id for i in range(7)]
    seen: list[str] = []
    url = "/api/jobs?limit=3"
    while True:
        answer = await client.get(url)
        seen += [job["job_id"] for job in answer.json()["jobs"]]
        link = answer.headers.get("link")
        if link is None:
            break
        assert link.endswith('; rel="next"')
        await manager.create_job()
        url = "/api/jobs" + link[1 : link.index(">")]
    assert seen == made[::-1]


async def test_totals_are_exact_or_at_least(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    for kind in ("a", "a", "b"):
        await manager.create_job(job_type=kind, labels={"owner": "ana"})
    one_label = (await client.get("/api/jobs", params={"label": "owner:ana", "limit": 1})).json()
    both = (await client.get("/api/jobs", params={"label": "owner:ana", "job_type": "a", "limit": 1})).json()
    free = (await client.get("/api/jobs", params={"q": "created", "limit": 1})).json()
    several = (await client.get("/api/jobs?status=pending&status=running&limit=1")).json()
    assert one_label["total"] == 3
    assert (both["total"], both["total_at_least"]) == (None, 2)
    assert (free["total"], free["reads"]) == (None, ["text"])
    assert several["total"] == 3


async def test_a_filter_error_points_at_the_character(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/jobs", params={"q": "type:a statsu:failed"})
    assert answer.status_code == 422
    assert answer.json()["position"] == 7


async def test_manual_jobs_are_updated_by_the_caller(client: httpx.AsyncClient) -> None:
    made = await client.post("/api/jobs", json={"run_by": "manual", "job_type": "script", "metadata": {"a": 1}})
    path = made.headers["location"]
    moved = await client.patch(path, json={"status": "running", "progress": 0.25, "message": "Half of half"})
    assert (moved.status_code, moved.json()["progress"]) == (200, 0.25)
    assert (await client.get(path + "/result")).status_code == 404
    await client.patch(path, json={"status": "completed", "result": {"n": [1, {}]}})
    assert (await client.get(path + "/result")).json() == {"n": [1, {}]}
    assert (await client.patch(path, json={"progress": 0.5})).status_code == 409


async def test_failure_groups_include_their_filter(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    for text in ("one", "two"):
        with pytest.raises(RuntimeError):
            async with manager.track("group"):
                raise RuntimeError(text)
    job = await manager.create_job()
    await manager.update_job(job.job_id, "failed", error="ValueError: no")

    groups = (await client.get("/api/failures")).json()["groups"]

    assert [(group["type"], group["count"]) for group in groups] == [("RuntimeError", 2), ("ValueError", 1)]
    assert groups[0]["frame"].startswith("test_endpoints.py:")
    for group in groups:
        found = (await client.get("/api/jobs", params={"q": group["q"]})).json()
        assert len(found["jobs"]) == group["count"]


async def test_attempts_and_logs(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    async def noisy() -> None:
        async with manager.track("noisy", job_id="noisy") as run:
            for number in range(3):
                run.log(f"line {number}")
            raise RuntimeError("over")

    with pytest.raises(RuntimeError):
        await noisy()
    path = "/api/jobs/noisy"
    attempts = (await client.get(path + "/attempts")).json()
    assert [attempt["type"] for attempt in attempts["attempts"]] == ["RuntimeError"]
    logs = (await client.get(path + "/logs")).json()
    assert [line["text"] for line in logs["lines"]] == ["line 0", "line 1", "line 2"]
    assert (await client.get(path + "/logs", params={"cursor": logs["cursor"]})).json()["lines"] == []


async def test_stats_count_and_measure(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    for status in ("completed", "completed", "failed"):
        job = await manager.create_job(job_type="measured")
        await manager.update_job(job.job_id, "running")
        await manager.update_job(job.job_id, status)
    stats = (await client.get("/api/stats?window=10m&step=1m")).json()
    assert stats["counts"] == {"measured": {"completed": 2, "failed": 1}}
    assert len(stats["steps"]) == 10
    assert sum(step["completed"] for step in stats["steps"]) == 2
    assert stats["duration"]["count"] == 3
    for wrong in ("window=0", "step=0", "window=1y", "window=1d&step=1s", "window=x"):
        assert (await client.get(f"/api/stats?{wrong}")).status_code == 422


async def test_limit_and_pause_at_once_keep_each_other(
    app: httpx.AsyncClient, jobs: AsyncJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = jobs.store
    set_limit = store.set_limit
    others = [(KEEP, True, KEEP), (KEEP, KEEP, 2), (7, KEEP, KEEP)]

    async def set_after_another(key: str, *values: Any) -> None:
        await set_limit(key, *others.pop(0))  # type: ignore[arg-type]
        await set_limit(key, *values)

    monkeypatch.setattr(store, "set_limit", set_after_another)
    assert (await app.put("/api/limits/reindex", json={"running": 3})).json()["running"] == 3
    assert await store.limits() == {"reindex": Limit(3, True, None)}
    limited = await app.patch("/api/job-types/reindex", json={"concurrency": 4})
    assert (limited.json()["limit"], limited.json()["paused"]) == (4, True)
    assert await store.limits() == {"reindex": Limit(4, True, 2)}
    resumed = await app.patch("/api/job-types/reindex", json={"paused": False})
    assert (resumed.json()["limit"], resumed.json()["paused"]) == (7, False)
    assert await store.limits() == {"reindex": Limit(7, False, 2)}


async def test_types_workers_and_limits(app: httpx.AsyncClient, jobs: AsyncJobs) -> None:
    async with jobs.run_workers():
        types = (await app.get("/api/job-types")).json()["job_types"]
        workers = (await app.get("/api/workers")).json()["workers"]
    assert [(one["name"], one["doc"]) for one in types] == [("reindex", "Re-embed every chunk of an index.")]
    assert types[0]["schema"]["properties"]["index"]["type"] == "string"
    assert workers[0]["types"] == ["reindex"]
    limited = (await app.patch("/api/job-types/reindex", json={"paused": True, "concurrency": 4})).json()
    assert (limited["paused"], limited["limit"]) == (True, 4)
    resumed = (await app.patch("/api/job-types/reindex", json={"paused": False})).json()
    assert (resumed["paused"], resumed["limit"]) == (False, 4)
    assert (await app.patch("/api/job-types/reindex", json={"concurrency": 0})).status_code == 422


async def test_retry_sends_a_failed_worker_job_back(app: httpx.AsyncClient, jobs: AsyncJobs) -> None:
    job = await jobs.submit("reindex", {"index": "docs"})
    await jobs.cancel_job(job.job_id)
    again = await app.post(f"/api/jobs/{job.job_id}/retry")
    assert (again.status_code, again.json()["status"]) == (200, "pending")
    assert (await app.post(f"/api/jobs/{job.job_id}/retry")).status_code == 409


async def test_doctor_and_purge(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    await manager.create_job()
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json()["status"] == "ok"
    assert (await client.get("/api/doctor")).json()["stopping"] == []
    assert (await client.post("/api/purge")).json() == {"removed": 0}
    assert (await client.post("/api/jobs/x/stop/forget")).status_code == 404
    metrics = (await client.get("/metrics")).text
    assert 'milepost_jobs{job_type="generic",status="pending"} 1.0' in metrics


async def test_metrics_count_expired_leases(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    """Regression: the counter looked for words in an error text, and stood still when the text changed."""
    await client.get("/metrics")  # events are counted from the first scrape on
    assert (await client.get("/api/stats")).status_code == 200  # earlier jobs have been read
    fields = {"type": "lost", "run_by": "track", "message": "", "metadata": "{}"}
    plan = plan_track(fields, new_operation_id(), nonce="n", lease=1)
    await manager.store.apply([Write("lost", plan)])
    sweeper = Sweeper(manager.store, replace(manager.settings, lease=0.1, heartbeat=0.05), 60.0)
    async with asyncio.timeout(30):
        while (await manager.store.get("lost")).status != "failed":
            await sweeper.sweep()
            await asyncio.sleep(0)  # a memory store never suspends
        while 'milepost_leases_lost_total{job_type="lost"} 1.0' not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.01)


async def test_forgetting_a_stop_closes_its_receipt(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    fields = {"type": "x", "run_by": "track", "message": "", "metadata": "{}"}
    plan = plan_track(fields, new_operation_id(), nonce="n", lease=600_000_000)
    await manager.store.apply([Write("stuck", plan)])
    await manager.cancel_job("stuck")
    assert (await client.post("/api/jobs/stuck/stop/forget")).status_code == 200
    receipt = (await client.get("/api/jobs/stuck")).json()["receipt"]
    assert (receipt["how"], receipt["confirmed"]) == ("dropped_by_admin", False)


async def test_cancel_of_unrestricted_caller_is_one_request(
    memory: AsyncJobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unexpected(job_id: str) -> None:
        raise AssertionError(f"{job_id} was read")

    await memory.create_job("one")
    monkeypatch.setattr(memory.store, "get", unexpected)
    async with client_of(memory) as web:
        assert (await web.post("/api/jobs/one/cancel")).json() == {"message": "Job cancelled", "job_id": "one"}
        for missing in ("two", "no%20id"):
            answer = await web.post(f"/api/jobs/{missing}/cancel")
            assert (answer.status_code, answer.json()["detail"]) == (404, "Job not found")
