"""A stopped Redis: every route returns 503 with Retry-After, and recovers without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager
from milepost.web import auth, create_app
from milepost.web.security.api_keys import ApiKeyStore
from tests.redis_server import RedisServer
from tests.web.route_table import BODIES, NEEDS, OPEN, path_of

pytestmark = pytest.mark.timing

WITHOUT_STORE = {
    ("GET", "/healthz"): 200,
    ("GET", "/api/milepost-watch.js"): 200,
    ("GET", "/metrics"): 200,  # it reports the outage
}
OTHER_BODIES: dict[tuple[str, str], Any] = {  # the bodies of the table need no store
    ("POST", "/api/jobs/bulk"): {"action": "cancel", "q": ""},
    ("POST", "/api/webhooks"): {"url": "https://93.184.216.34/"},
    ("POST", "/api/session"): {"key": "mp_abc_def"},
}


def client_of(manager: AsyncJobManager, scheme: Any) -> httpx.AsyncClient:
    app = create_app(manager, auth=scheme)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


async def ask(web: httpx.AsyncClient, call: tuple[str, str], headers: dict[str, str]) -> httpx.Response:
    """Send one request as a client would; of a stream, ask for JSON."""
    body = OTHER_BODIES.get(call, BODIES.get(call))
    headers = headers | ({"Accept": "application/json"} if call[1].endswith("/events") else {})
    async with asyncio.timeout(60):
        return await web.request(call[0], path_of(call[1]), json=body, headers=headers)


@pytest.mark.parametrize("scheme", [auth.none(), auth.api_keys()], ids=["none", "keys"])
async def test_every_route_is_503_while_the_store_is_unavailable(
    start_redis: Callable[..., RedisServer], scheme: Any
) -> None:
    redis = start_redis(appendonly="always")
    manager = AsyncJobManager(redis.url)
    _, secret = await ApiKeyStore(manager.store).create("test", ["jobs:read", "jobs:write", "jobs:delete", "admin"])
    headers = {"Authorization": f"Bearer {secret}"} if scheme.keyed else {}
    job = await manager.create_job()
    calls = sorted({*NEEDS, *OPEN})
    async with client_of(manager, scheme) as web:
        redis.stop()
        # A write on a breaking connection would be retried for 30 s, because its outcome is unknown.
        assert (await web.get("/readyz")).status_code == 503
        wrong = {}
        # Concurrently, because each waits a few seconds for a store that may be restarting.
        answers = await asyncio.gather(*(ask(web, call, headers) for call in calls))
        for call, answer in zip(calls, answers, strict=True):
            received = (answer.status_code, answer.headers.get("retry-after", "").isdigit())
            needs_none = call in WITHOUT_STORE and (call[1] != "/metrics" or not scheme.keyed)
            expected = (WITHOUT_STORE[call], False) if needs_none else (503, True)
            if received != expected:
                wrong[call] = received
        # Without authentication the caller is known without the store; signing out clears a cookie.
        allowed = {("DELETE", "/api/session"): (204, False)}
        if not scheme.keyed:
            allowed |= {("GET", "/api/session"): (200, False), ("POST", "/api/session"): (404, False)}
            allowed |= {("POST", "/api/keys"): (403, False)}  # a server without authentication does not create keys
        assert wrong == allowed
        redis.start()
        for call in calls:
            if call != ("GET", "/api/events"):  # with the store available it would be endless
                assert (await ask(web, call, headers)).status_code < 500, call
        assert (await web.get(f"/api/jobs/{job.job_id}", headers=headers)).json()["job_id"] == job.job_id
    await manager.close()
