"""A Redis that is really away: every call says so with 503 and Retry-After, and all is well by itself when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager
from milepost.web import auth, create_app
from milepost.web.keys import Keys
from tests.services import RedisServer
from tests.web.table import BODIES, NEEDS, OPEN, path_of

WITHOUT_STORE = {
    ("GET", "/healthz"): 200,
    ("GET", "/api/milepost-watch.js"): 200,
    ("GET", "/metrics"): 200,  # they tell of the outage
}
OTHER_BODIES: dict[tuple[str, str], Any] = {  # those of the table need no store: nothing is asked for
    ("POST", "/api/jobs/bulk"): {"action": "cancel", "q": ""},
    ("POST", "/api/webhooks"): {"url": "https://93.184.216.34/"},
    ("POST", "/api/session"): {"key": "mp_abc_def"},
}


def client_of(manager: AsyncJobManager, who: Any) -> httpx.AsyncClient:
    app = create_app(manager, auth=who)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


async def ask(web: httpx.AsyncClient, call: tuple[str, str], headers: dict[str, str]) -> httpx.Response:
    """One call, as a client would make it; of a stream what there is as JSON."""
    body = OTHER_BODIES.get(call, BODIES.get(call))
    headers = headers | ({"Accept": "application/json"} if call[1].endswith("/events") else {})
    async with asyncio.timeout(60):
        return await web.request(call[0], path_of(call[1]), json=body, headers=headers)


@pytest.mark.parametrize("who", [auth.none(), auth.api_keys()], ids=["none", "keys"])
async def test_every_call_is_503_while_the_store_is_away(start_redis: Callable[..., RedisServer], who: Any) -> None:
    redis = start_redis(appendonly="always")
    manager = AsyncJobManager(redis.url)
    _, secret = await Keys(manager.store).create("test", ["jobs:read", "jobs:write", "jobs:delete", "admin"])
    headers = {"Authorization": f"Bearer {secret}"} if who.keyed else {}
    job = await manager.create_job()
    calls = sorted({*NEEDS, *OPEN})
    async with client_of(manager, who) as web:
        redis.stop()
        # A write that was sent on a connection just then breaking would be tried for 30 s: its outcome is unknown.
        assert (await web.get("/readyz")).status_code == 503
        wrong = {}
        # At once, because each waits for a few seconds for a store that may only be restarting.
        answers = await asyncio.gather(*(ask(web, call, headers) for call in calls))
        for call, answer in zip(calls, answers, strict=True):
            told = (answer.status_code, answer.headers.get("retry-after", "").isdigit())
            needs_none = call in WITHOUT_STORE and (call[1] != "/metrics" or not who.keyed)
            expected = (WITHOUT_STORE[call], False) if needs_none else (503, True)
            if told != expected:
                wrong[call] = told
        # Who asks is known without the store where nobody is asked; signing out is clearing a cookie.
        allowed = {("DELETE", "/api/session"): (204, False)}
        if not who.keyed:
            allowed |= {("GET", "/api/session"): (200, False), ("POST", "/api/session"): (404, False)}
        assert wrong == allowed
        redis.start()
        for call in calls:
            if call != ("GET", "/api/events"):  # now it would be endless
                assert (await ask(web, call, headers)).status_code < 500, call
        assert (await web.get(f"/api/jobs/{job.job_id}", headers=headers)).json()["job_id"] == job.job_id
    await manager.close()
