"""Owners' ingestions over HTTP: which jobs a caller bound to the owner label may start, and what they read."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import Request

from milepost import AsyncJobs
from milepost.core.job import Job
from milepost.documents.jobs import document_jobs
from milepost.documents.routes import attach_documents
from milepost.web import Principal, create_app

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="submitted paths need dir_fd")


def known(request: Request) -> Principal:
    """Return a caller that is bound to the labels of the header, such as ``tenant=a``."""
    given = request.headers.get("x-labels")
    labels = dict([given.split("=")]) if given else {}
    return Principal(given or "operator", labels=labels)


class Site(NamedTuple):
    """A server that has the owner label `tenant`, and the folder of submitted jobs with one folder per tenant."""

    jobs: AsyncJobs
    client: httpx.AsyncClient
    root: Path
    database: str

    def handlers(self, owner_label: str | None) -> AsyncJobs:
        """Return an application on the same store, with document jobs of this owner label."""
        return add_documents(AsyncJobs(self.jobs.manager), self.root, self.database, owner_label)

    async def call(self, method: str, path: str, labels: str = "", **given: Any) -> httpx.Response:
        return await self.client.request(method, f"/api/{path}", headers={"x-labels": labels}, **given)

    async def submit(self, labels: str, **params: Any) -> httpx.Response:
        body = {"job_type": "ingestion", "params": {"paths": ["."], **params}}
        return await self.call("POST", "jobs", labels, json=body)

    async def ended(self, answer: httpx.Response, jobs: AsyncJobs | None = None) -> Job:
        assert answer.is_success, answer.text
        async with (jobs or self.jobs).run_workers():
            return await self.jobs.wait(answer.json()["job_id"], 60)


def add_documents(jobs: AsyncJobs, root: Path, database: str, owner_label: str | None) -> AsyncJobs:
    made = document_jobs(root=root, database=database, model="hashing:64", owner_label=owner_label)
    for name, function in made.items():
        jobs.job(name)(function)
    return jobs


@pytest.fixture
async def site(folder: Path, database: str, tmp_path: Path) -> AsyncIterator[Site]:
    for tenant in ("a", "b"):
        (folder / tenant).mkdir()
        (folder / tenant / "notes.txt").write_text(f"A text of tenant{tenant} about lighthouses.")
    (folder / "top.txt").write_text("A text of the operator.")
    jobs = add_documents(AsyncJobs(f"sqlite:///{tmp_path}/jobs.db"), folder, database, "tenant")
    app = create_app(jobs, auth=known)
    attach_documents(app, database=database, owner_label="tenant")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield Site(jobs, client, folder, database)
    await jobs.close()


async def test_empty_owner_is_refused(site: Site) -> None:
    """A key with an empty owner label read the folders of all tenants, and the documents of the operator."""
    assert (await site.submit("tenant=a")).status_code == 201
    assert (await site.submit("tenant=")).status_code == 403
    for path in ("documents", "documents/search?q=text"):
        assert (await site.call("GET", path, "tenant=a")).status_code == 200
        assert (await site.call("GET", path, "tenant=")).status_code == 403


async def test_worker_refuses_an_empty_owner(site: Site) -> None:
    """The operator's own request with an empty label read the folders of all tenants."""
    body = {"job_type": "ingestion", "params": {"paths": ["."]}, "labels": {"tenant": ""}}
    job = await site.ended(await site.call("POST", "jobs", json=body))
    assert (job.status.value, (job.error or "").partition(":")[0]) == ("failed", "labels.tenant")


@pytest.mark.parametrize("label", [None, "team"])
async def test_worker_without_the_owner_label_refuses_owners(site: Site, label: str | None) -> None:
    """A worker without the label ran the jobs of tenants over the folders of all of them."""
    worker = site.handlers(label)
    waiting = [await site.submit("tenant=a"), await site.submit("")]
    async with worker.run_workers():
        theirs, own = [await site.jobs.wait(answer.json()["job_id"], 60) for answer in waiting]
    assert (theirs.status.value, (theirs.error or "").partition(":")[0]) == ("failed", "labels.tenant")
    assert own.status == "completed", "the operator's own job has no owner"
    again = await site.ended(await site.call("POST", f"jobs/{theirs.job_id}/retry", "tenant=a"))
    assert (again.result or {}).get("documents") == 1, again.error


async def test_schedule_of_an_owner_keeps_the_owner_label(site: Site) -> None:
    body = {"job_type": "ingestion", "cron": "0 3 * * *", "params": {"paths": ["."]}}
    assert (await site.call("PUT", "schedules/nightly", "tenant=a", json=body)).is_success
    fired = await site.call("POST", "schedules/nightly/fire", "tenant=a")
    job = await site.ended(fired, site.handlers(None))
    assert (job.status.value, (job.error or "").partition(":")[0]) == ("failed", "labels.tenant")


async def test_owner_cannot_retry_or_fire_work_of_the_operator(site: Site) -> None:
    """The operator's own ingestions have no root. An owner's key ran them again over files outside of it."""
    secret = site.root.parent / "secret.txt"
    params = {"paths": [str(secret)]}
    job = await site.jobs.submit("ingestion", params, labels={"tenant": "a"})
    async with site.jobs.run_workers():
        assert (await site.jobs.wait(job.job_id, 60)).status == "failed"
    secret.write_text("A text of the operator outside the root.")
    for given in ({}, {"only_failed": True}, {"from_start": True}):
        assert (await site.call("POST", f"jobs/{job.job_id}/retry", "tenant=a", json=given)).status_code == 403
    bulk = {"action": "retry", "ids": [job.job_id]}
    answer = await site.call("POST", "jobs/bulk", "tenant=a", json=bulk)
    assert [one["outcome"] for one in answer.json()["outcomes"]] == ["refused"]
    options = {"labels": {"tenant": "a"}}
    await site.jobs.add_schedule("nightly", "ingestion", cron="0 3 * * *", params=params, options=options)
    for action in ("fire", "resume"):
        assert (await site.call("POST", f"schedules/nightly/{action}", "tenant=a")).status_code == 403
    assert (await site.call("POST", f"jobs/{job.job_id}/retry")).status_code == 200, "the operator may"
