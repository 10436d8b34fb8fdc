"""Jobs that follow others over HTTP: what a caller may name, what is refused, and what is shown."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager, AsyncJobs, InvalidInputError, Run
from milepost.client import AsyncClient
from milepost.web import auth, create_app
from tests.web.conftest import client_of
from tests.web.test_access import key


def jobs_of(memory: AsyncJobManager) -> AsyncJobs:
    """Return jobs of one type, without a worker."""
    jobs = AsyncJobs(memory.store)

    @jobs.job("load")
    def load(run: Run) -> None: ...

    jobs.worker()
    return jobs


async def test_job_follows_others_over_http(memory: AsyncJobManager) -> None:
    jobs = jobs_of(memory)
    async with client_of(jobs) as web:
        first = (await web.post("/api/jobs", json={"job_type": "load", "group": "g"})).json()
        body = {"job_type": "load", "after": [f"job:{first['job_id']}", "group:g"], "on_failure": "run"}
        job = (await web.post("/api/jobs", json=body)).json()
        assert job["waiting_for"] == {"code": "after", "params": {"group": f"job:{first['job_id']}"}}
        assert job["activity"] == f"Waiting for job {first['job_id']}"
        refused = await web.post("/api/jobs", json={"job_type": "load", "after": ["job:missing"]})
        assert refused.status_code == 422
        assert "after: there is no job 'missing'; submit it first" in refused.text
    async with jobs.run_workers():
        assert (await jobs.wait(job["job_id"], 30)).status == "completed"


async def test_client_refuses_text_in_place_of_a_list(memory: AsyncJobManager) -> None:
    """It was sent as a list of its letters."""
    transport = httpx.ASGITransport(create_app(jobs_of(memory), auth=auth.none()))
    client = AsyncClient("http://testserver", transport=transport)
    with pytest.raises(InvalidInputError, match=r"^after: 'job:a' must be a list of at most 100 jobs or groups$"):
        await client.submit("load", {}, after="job:a")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"must begin with job: or children: or group:, for example job:a$"):
        await client.submit("load", {}, after=["jobs:a"])
    assert await memory.count_jobs() == 0


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("after", ["job:theirs"], "there is no job 'theirs'"),
        ("after", ["children:theirs"], "there is no job 'theirs'"),
        ("after", ["job:nowhere"], "there is no job 'nowhere'"),
        ("after", ["group:import"], "no job is in the group 'import'"),
        ("parent_id", "theirs", "there is no job 'theirs'"),
        ("group", "import", "'import' is in use"),
    ],
)
async def test_bound_caller_cannot_name_hidden_jobs(
    memory: AsyncJobManager, field: str, value: object, text: str
) -> None:
    jobs = jobs_of(memory)
    await jobs.submit("load", {}, job_id="theirs", group="import", labels={"owner": "bob"})
    await jobs.submit("load", {}, job_id="mine", group="export", labels={"owner": "ana"})
    headers = await key(memory, "jobs:read", "jobs:write", labels={"owner": "ana"})
    async with client_of(jobs, auth.api_keys()) as web:
        refused = await web.post("/api/jobs", json={"job_type": "load", field: value}, headers=headers)
        assert refused.status_code == 422
        assert text in refused.text
        for own in ({"after": ["job:mine", "children:mine", "group:export"]}, {"parent_id": "mine", "group": "export"}):
            assert (await web.post("/api/jobs", json={"job_type": "load", **own}, headers=headers)).status_code == 201


@pytest.mark.parametrize("limits", [{"types": ("load",)}, {"queues": ("load",)}, {"labels": {"owner": "ana"}}])
async def test_limited_key_cannot_put_back_the_jobs_that_follow(
    memory: AsyncJobManager, limits: dict[str, Any]
) -> None:
    jobs = jobs_of(memory)
    bad = await jobs.submit("load", {}, labels={"owner": "ana"})
    secret = await memory.enqueue("secret", {}, after=[bad])
    await jobs.cancel_job(bad.job_id)
    assert (await jobs.wait(secret.job_id, 10)).status == "cancelled"
    limited, free = [await key(memory, "jobs:read", "jobs:write", **given) for given in (limits, {})]
    url, body = f"/api/jobs/{bad.job_id}/retry", {"dependents": True}
    async with client_of(jobs, auth.api_keys()) as web:
        refused = await web.post(url, json=body, headers=limited)
        assert refused.status_code == 422
        assert "dependents: needs a key without labels, types and queues" in refused.text
        assert [job.status.value for job in await jobs.list_jobs()] == ["cancelled", "cancelled"]
        assert (await web.post(url, json=body, headers=free)).status_code == 200
        assert [job.status.value for job in await jobs.list_jobs()] == ["pending", "pending"]


async def test_stats_count_waiting_jobs(memory: AsyncJobManager) -> None:
    jobs = jobs_of(memory)
    first = await jobs.submit("load")
    await jobs.submit("load", after=[first])
    await jobs.submit("load", labels={"owner": "ana"})
    async with client_of(jobs) as web:
        for query, waiting in (({}, 1), ({"q": "status:pending"}, 1), ({"q": "label.owner:ana"}, 0)):
            found = (await web.get("/api/stats", params=query)).json()
            assert (found["waiting"], found["counts"]["load"]["pending"]) == (waiting, 3 if waiting else 1)
        async with jobs.run_workers():
            await jobs.wait(first, 30)
        found = (await web.get("/api/stats", params={"window": "2h"})).json()
        assert found["waiting"] == 0
