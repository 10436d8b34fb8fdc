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
async def site(folder: Path, database: str) -> AsyncIterator[Site]:
    for tenant in ("a", "b"):
        (folder / tenant).mkdir()
        (folder / tenant / "notes.txt").write_text(f"A text of tenant{tenant} about lighthouses.")
    (folder / "top.txt").write_text("A text of the operator.")
    jobs = add_documents(AsyncJobs("memory://"), folder, database, "tenant")
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
