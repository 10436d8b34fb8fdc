"""Usage over HTTP: the client, what each key may see, and the metric."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from milepost import AsyncClient, AsyncJobManager, InvalidInputError, JobNotFoundError
from milepost.web import auth
from milepost.web.app import create_app
from milepost.web.security.api_keys import ApiKeyStore
from tests.web.conftest import client_of


async def spend(manager: AsyncJobManager, tenant: str, **amounts: float) -> str:
    """Track a job of a tenant, and return its id."""
    async with manager.track("chat", labels={"tenant": tenant}) as run:
        run.add_usage(**amounts)
    return run.job_id


async def caller(manager: AsyncJobManager, **limits: Any) -> AsyncClient:
    """Return a client with a new key."""
    _, secret = await ApiKeyStore(manager.store).create("k", ("jobs:read",), **limits)
    transport = httpx.ASGITransport(create_app(manager, auth=auth.api_keys()))
    return AsyncClient("http://server", key=secret, transport=transport)


async def test_client_has_the_methods_of_the_manager(manager: AsyncJobManager) -> None:
    job_id = await spend(manager, "acme", tokens=7, usd=0.25)
    client = await caller(manager)
    for options in ({}, {"by": "day"}, {"by": "label:tenant", "labels": {"tenant": "acme"}, "job_type": "chat"}):
        assert await client.usage(**options) == await manager.usage(**options)  # type: ignore[arg-type]
    assert (await client.job_usage(job_id)).total == {"tokens": 7, "usd": 0.25}
    with pytest.raises(JobNotFoundError):
        await client.job_usage("none")
    with pytest.raises(InvalidInputError, match="by: 'x' must be type, day or label:NAME"):
        await client.usage(by="x")


async def test_restricted_key_sees_only_its_own(memory: AsyncJobManager) -> None:
    await spend(memory, "acme", usd=1)
    other = await spend(memory, "zoo", usd=10)
    async with memory.track("chat", labels={"secret": "plan"}) as run:
        run.add_usage(usd=100)
    client = await caller(memory, labels={"tenant": "acme"})
    assert (await client.usage(by="label:tenant")).groups == {"acme": {"usd": 1}}
    assert (await client.usage(labels={"tenant": "acme"})).total == {"usd": 1}
    assert (await client.usage()).label_names == ["tenant"]
    hidden = await client.usage(labels={"tenant": "zoo"})
    assert (hidden.groups, hidden.total) == ({}, {})
    with pytest.raises(JobNotFoundError):
        await client.job_usage(other)


async def test_report_of_days_before_any_is_empty(memory: AsyncJobManager) -> None:
    await spend(memory, "acme", usd=1)
    found = await (await caller(memory)).usage(until="0001-01-02")
    assert (found.since.isoformat(), found.groups, found.complete) == ("0001-01-01", {}, False)


@pytest.mark.parametrize(
    ("query", "field"),
    [("by=user", "by"), ("since=2026-02-30", "since"), ("until=soon", "until"), ("label=tenant", "label")],
)
async def test_wrong_parameter_is_named(memory: AsyncJobManager, query: str, field: str) -> None:
    async with client_of(memory) as client:
        response = await client.get(f"/api/usage?{query}")
    assert response.status_code == 422
    assert field in response.text


async def test_metric_counts_usage_by_type_and_name(memory: AsyncJobManager) -> None:
    await memory.delete_job(await spend(memory, "acme", tokens=7, usd=0.25))
    async with client_of(memory) as client:
        text = (await client.get("/metrics")).text
    assert 'milepost_usage_total{job_type="chat",name="tokens"} 7.0' in text
    assert 'milepost_usage_total{job_type="chat",name="usd"} 0.25' in text
