"""The four original endpoints: paths, statuses, bodies and texts."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from milepost import AsyncJobManager, InMemoryJobManager
from milepost.settings import settings
from milepost.web import auth, create_router

ELEVEN = ["job_id", "job_type", "status", "progress", "message", "created_at", "started_at", "completed_at", "error",
          "result", "metadata"]  # fmt: skip


async def test_list_is_jobs_and_total_newest_first(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    made = [(await manager.create_job(job_type=kind)).job_id for kind in ("ingestion", "extraction", "ingestion")]

    answer = await client.get("/api/jobs")

    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"jobs", "total"}
    assert [job["job_id"] for job in body["jobs"]] == made[::-1]
    assert body["total"] == 3


async def test_filters_apply_before_limit_and_total_counts_all(
    client: httpx.AsyncClient, manager: AsyncJobManager
) -> None:
    old = await manager.create_job(job_type="rare")
    for _ in range(5):
        await manager.create_job(job_type="common")

    rare = (await client.get("/api/jobs", params={"job_type": "rare", "status": "pending", "limit": 1})).json()
    common = (await client.get("/api/jobs", params={"job_type": "common", "limit": 2})).json()

    assert [job["job_id"] for job in rare["jobs"]] == [old.job_id]
    assert rare["total"] == 1
    assert len(common["jobs"]) == 2
    assert common["total"] == 5


async def test_empty_parameters_are_no_filter(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    await manager.create_job()
    body = (await client.get("/api/jobs?status=&job_type=&q=&cursor=")).json()
    assert body["total"] == 1


@pytest.mark.parametrize("query", ["status=done", "limit=0", "limit=-1", "limit=x", "job_type=%00", "cursor=@@@"])
async def test_invalid_filter_is_422(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/api/jobs?{query}")
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


async def test_limit_above_maximum_is_capped(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/jobs?limit=1000000000")).status_code == 200


async def test_get_is_the_record_with_the_eleven_fields_first(
    client: httpx.AsyncClient, manager: AsyncJobManager
) -> None:
    job = await manager.create_job(job_type="ingestion", metadata={"pages": [1, {"a": None}], "text": 'ä"\\\u2028'})

    answer = await client.get(f"/api/jobs/{job.job_id}")

    assert answer.status_code == 200
    assert list(answer.json())[:11] == ELEVEN
    assert answer.json() == job.to_dict()


async def test_unknown_id_is_404_with_original_text(client: httpx.AsyncClient) -> None:
    for answer in (await client.get("/api/jobs/nope"), await client.post("/api/jobs/nope/cancel")):
        assert answer.status_code == 404
        assert answer.json()["detail"] == "Job not found"
        assert answer.headers["content-type"] == "application/problem+json"


async def test_cancel_twice(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    job = await manager.create_job()

    first = await client.post(f"/api/jobs/{job.job_id}/cancel")
    second = await client.post(f"/api/jobs/{job.job_id}/cancel")

    assert first.status_code == 200
    assert first.json() == {"message": "Job cancelled", "job_id": job.job_id}
    assert second.status_code == 400
    assert second.json()["detail"] == "Cannot cancel job with status cancelled"
    cancelled = await manager.get_job(job.job_id)
    assert cancelled is not None
    assert cancelled.message == "Job cancelled by user"


async def test_a_completed_job_cannot_be_cancelled(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    job = await manager.create_job()
    await manager.update_job(job.job_id, "completed", result={"n": 1})

    answer = await client.post(f"/api/jobs/{job.job_id}/cancel")

    assert answer.status_code == 400
    assert answer.json()["detail"] == "Cannot cancel job with status completed"


async def test_delete_is_idempotent(client: httpx.AsyncClient, manager: AsyncJobManager) -> None:
    job = await manager.create_job()
    for _ in range(2):
        answer = await client.delete(f"/api/jobs/{job.job_id}")
        assert answer.status_code == 200
        assert answer.json() == {"message": "Job deleted", "job_id": job.job_id}
    assert await manager.get_job(job.job_id) is None


async def test_router_works_with_a_blocking_manager() -> None:
    manager = InMemoryJobManager()
    app = FastAPI()
    app.include_router(create_router(manager, auth=auth.none()))
    job = manager.create_job(job_type="test")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        assert (await client.get(f"/api/jobs/{job.job_id}")).json()["job_id"] == job.job_id


async def test_module_router_reads_auth_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import milepost.web

    monkeypatch.delitem(vars(milepost.web), "router", raising=False)
    settings.reload()
    with pytest.raises(ValueError, match="MILEPOST_AUTH: is not set"):
        _ = milepost.web.router
    monkeypatch.setenv("MILEPOST_AUTH", "none")
    settings.reload()
    try:
        app = FastAPI()
        app.include_router(milepost.web.router)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
            assert (await client.get("/api/jobs?limit=1")).status_code == 200
    finally:
        monkeypatch.undo()
        settings.reload()
