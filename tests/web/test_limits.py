"""Limits, rates and gates over HTTP, and the client's methods for them."""

from __future__ import annotations

import httpx
import pytest

from milepost import AsyncJobs, InvalidInputError
from milepost.client import AsyncClient
from milepost.core.limits import LimitState
from milepost.web import auth, create_app


@pytest.fixture
def jobs() -> AsyncJobs:
    return AsyncJobs("memory://")


@pytest.fixture
def client(jobs: AsyncJobs) -> AsyncClient:
    return AsyncClient("http://server", transport=httpx.ASGITransport(create_app(jobs, auth=auth.none())))


async def test_rate_and_gate_are_set_and_listed(jobs: AsyncJobs, client: AsyncClient) -> None:
    await client.limit("tenant/a", running=8, rate="500/minute")
    assert await client.limits() == [LimitState("tenant/a", 8, rate="500/min")]
    await client.close_gate("tenant/a", "1h")
    await client.close_gate("tenant/a", "1m")
    await client.close_gate("tenant/a", 0)  # opens nothing that others have closed
    (found,) = await client.limits()
    assert found.gate_until is not None
    assert await jobs.limits() == [found]
    await client.open_gate("tenant/a")
    with pytest.raises(InvalidInputError, match="running: give running, per_partition or rate"):
        await client.limit("tenant/a")
    await client.limit("tenant/a", rate="2/s")
    assert await client.limits() == [LimitState("tenant/a", rate="2/s")]
    await client.remove_limit("tenant/a")
    assert await client.limits() == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("limits/embed", {"rate": "often"}, "rate"),
        ("limits/embed", {"rate": "1" * 100}, "rate"),
        ("limits/embed", {"running": -1}, "running"),
        ("limits/embed", {}, "rate"),
        ("limits/" + "x" * 200, {"rate": "1/s"}, "key"),
        ("gates/embed", {"seconds": -1}, "seconds"),
        ("gates/embed", {"seconds": 1e300}, "seconds"),
        ("gates/embed", {}, "seconds"),
        ("gates/" + "x" * 200, {"seconds": 1}, "key"),
    ],
)
async def test_invalid_request_changes_nothing(
    jobs: AsyncJobs, client: AsyncClient, path: str, body: dict[str, object], field: str
) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(jobs, auth=auth.none())), base_url="http://test"
    ) as http:
        answer = await http.put(f"/api/{path}", json=body)
    assert answer.status_code == 422
    assert field in answer.text
    assert await jobs.limits() == []
