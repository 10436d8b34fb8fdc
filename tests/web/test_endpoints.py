"""All routes beyond the four original ones, on each kind of store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager, AsyncJobs
from milepost.core.limits import KEEP, Limit
from milepost.core.transitions import plan_track
from milepost.run.sweeper import Sweeper
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Write
from tests.web.conftest import client_of


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
