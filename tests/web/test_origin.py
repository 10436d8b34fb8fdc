"""The origin of a job: an HTTP request, or code with access to the store. Requests cannot set operators' parameters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest

from milepost import AsyncJobManager, AsyncJobs, Run
from milepost.run.param_types import OperatorOnly
from milepost.web import auth
from milepost.web.security.api_keys import ApiKeyStore
from tests.web.conftest import client_of

BODY = {"job_type": "load", "params": {"name": "a"}}


@pytest.fixture
async def jobs(manager: AsyncJobManager) -> AsyncJobs:
    """Return jobs with an operators' parameter, on each kind of store. Their worker is not started yet."""
    jobs = AsyncJobs(manager.store)
    jobs.worker()

    @jobs.job("load")
    def load(run: Run, name: str, place: Annotated[str | None, OperatorOnly("PLACE")] = None) -> None:
        raise ValueError("no")

    @jobs.job("plain")
    def plain(run: Run) -> None: ...

    return jobs


@pytest.fixture
async def web(jobs: AsyncJobs) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(jobs) as client:
        yield client


async def test_submit_over_http_is_recorded_as_such(web: httpx.AsyncClient, jobs: AsyncJobs) -> None:
    """A worker could not tell a request's paths from those of its operator."""
    made = (await web.post("/api/jobs", json=BODY)).json()
    driven = (await web.post("/api/jobs", json={"job_type": "x", "run_by": "manual"})).json()
    local = await jobs.submit("load", {"name": "a"})
    assert (made["origin"], driven["origin"], local.origin) == ("api", "api", "local")
    kept = await jobs.get_job(made["job_id"])
    assert kept is not None
    assert kept.origin == "api"
    assert (await web.get(f"/api/jobs/{local.job_id}")).json()["origin"] == "local"


@pytest.mark.parametrize("field", ["origin", "driver_origin"])
async def test_request_cannot_set_the_origin(web: httpx.AsyncClient, field: str) -> None:
    assert (await web.post("/api/jobs", json={**BODY, field: "local"})).status_code == 422
    made = (await web.post("/api/jobs", json={**BODY, "metadata": {field: "local"}})).json()
    assert made["origin"] == "api"
    for body in ({field: "local"}, {"status": "running", field: "local"}):
        assert (await web.patch(f"/api/jobs/{made['job_id']}", json=body)).status_code == 422


async def test_origin_survives_retries(web: httpx.AsyncClient, jobs: AsyncJobs) -> None:
    """A retry over HTTP must not change the origin of a local job, nor a local retry that of a request."""
    ids = {
        "api": (await web.post("/api/jobs", json=BODY)).json()["job_id"],
        "local": (await jobs.submit("load", {"name": "a", "place": "/srv"})).job_id,
    }
    for origin, job_id in ids.items():
        await jobs.cancel_job(job_id)
        again = (await web.post(f"/api/jobs/{job_id}/retry")).json()
        kept = await jobs.get_job(job_id)
        assert kept is not None
        assert (again.get("origin", origin), kept.origin, kept.status) == (origin, origin, "pending")
    kept = await jobs.get_job(ids["local"])
    assert kept is not None
    assert kept.params == {"name": "a", "place": "/srv"}


@pytest.mark.timing
async def test_origin_survives_a_retry_of_failed_items(manager: AsyncJobManager) -> None:
    jobs = AsyncJobs(manager.store)

    @jobs.job("items")
    def items(run: Run) -> None:
        with run.item("a"):
            raise ValueError("no")

    async with jobs.run_workers(), client_of(jobs) as web:
        ids = {
            "api": (await web.post("/api/jobs", json={"job_type": "items"})).json()["job_id"],
            "local": (await jobs.submit("items")).job_id,
        }
        for origin, job_id in ids.items():
            assert (await jobs.wait(job_id, 30)).item_counts is not None
            again = (await web.post(f"/api/jobs/{job_id}/retry", json={"only_failed": True})).json()
            made = await jobs.get_job(again["job_id"])
            assert made is not None
            assert (made.origin, made.retry_of) == (origin, job_id)


async def test_parameter_of_the_operator_is_refused_over_http(web: httpx.AsyncClient, jobs: AsyncJobs) -> None:
    """Every caller with a key could choose where the operator's worker writes."""
    refused = await web.post("/api/jobs", json={"job_type": "load", "params": {"name": "a", "place": "/etc"}})
    assert refused.status_code == 422
    assert "place" in refused.text
    assert "PLACE" in refused.text
    assert (
        await web.post("/api/jobs", json={"job_type": "load", "params": {"name": "a", "place": None}})
    ).status_code == 201
    assert (await jobs.submit("load", {"name": "a", "place": "/srv"})).params == {"name": "a", "place": "/srv"}


@pytest.mark.timing
async def test_operator_parameter_is_refused_from_published_types(manager: AsyncJobManager, jobs: AsyncJobs) -> None:
    """A server without the code of a type knows it from its workers."""
    async with jobs.run_workers(), client_of(AsyncJobManager(manager.store)) as web:
        while not await jobs.job_types():
            await asyncio.sleep(0.01)
        refused = await web.post("/api/jobs", json={"job_type": "load", "params": {"name": "a", "place": "/etc"}})
        assert (refused.status_code, "PLACE" in refused.text) == (422, True)


@pytest.mark.timing
async def test_worker_refuses_operator_parameters(manager: AsyncJobManager, jobs: AsyncJobs) -> None:
    """A record of an older server reaches the worker unchecked."""
    job = await manager.enqueue("load", {"name": "a", "place": "/etc"}, origin="api")
    async with jobs.run_workers():
        ended = await jobs.wait(job.job_id, 30)
    assert ended.status == "failed"
    assert ended.failure is not None
    assert ended.failure.kind == "bad_parameters"
    assert "place" in (ended.error or "")


async def test_bound_key_cannot_submit_operator_types(jobs: AsyncJobs) -> None:
    """A tenant's key, which may not search the documents, could replace their index."""
    _, secret = await ApiKeyStore(jobs.store).create("ana", ["jobs:read", "jobs:write"], labels={"owner": "ana"})
    headers = {"Authorization": f"Bearer {secret}"}
    async with client_of(jobs, auth.api_keys()) as web:
        assert (await web.post("/api/jobs", json=BODY, headers=headers)).status_code == 403
        assert (await web.post("/api/jobs", json={"job_type": "plain"}, headers=headers)).status_code == 201
