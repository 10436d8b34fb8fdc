"""Hostile input never causes a 5xx or changes the store. An unavailable store gives 503 with Retry-After."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager, StoreUnavailableError
from milepost.core.errors import OutcomeUnknownError, StoreFullError
from milepost.core.serialization import JSON_DEPTH
from milepost.web import auth, create_app
from milepost.web.http.json_body import depth
from tests.waiting import PATIENCE
from tests.web.conftest import client_of
from tests.web.server import Server

IDS = [
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "a%0d%0aSet-Cookie:x",
    "%F0%9F%98%80",
    "{a}",
    "*",
    "a" * 5000,
    "%ff",
    "a b",
    "?",
    "#",
]
DEEP = "[" * 100_000 + "]" * 100_000
BODIES: list[bytes] = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'{"job_type": NaN}',
    b'{"job_type": "x", "params": {"a": Infinity}}',
    b'{"job_type": "x", "run_by": "manual", "metadata": {"a": NaN}}',
    b'{"job_type": "x", "run_by": "manual", "metadata": {"a": "\\ud800"}}',
    b'{"job_type": "\\ud800", "run_by": "manual"}',
    b'{"job_type": "a\\u0000b", "run_by": "manual"}',
    b'{"job_type": "x", "run_by": "manual", "labels": {"a": "\\r\\n"}}',
    b'{"job_type": "x", "run_by": "manual", "job_id": "../x"}',
    b'{"job_type": "x", "priority": 1e400}',
    b'{"job_type": "x", "priority": true}',
    b'{"job_type": "x", "timeout": -1}',
    b'{"job_type": "x", "timeout": "%s"}' % (b"1" * 1_000_000),
    b'{"job_type": "x", "not_before": "99999-01-01T00:00:00Z"}',
    b'{"job_type": "x", "run_by": "manual", "metadata": %s}' % DEEP.encode(),
    b'{"job_type": "x", "run_by": "manual", "metadata": {"a": "%s"}}' % (b"x" * 100_000),
    b'{"job_type": "x", "run_by": "manual", "a": "' + b'\\"' * 400_000,
    b"\xff\xfe\x00",
]


async def everything(manager: AsyncJobManager) -> tuple[Any, ...]:
    """Return all visible content of a store."""
    return (
        await manager.store.counts(),
        [(job.job_id, job.version) for job in await manager.list_jobs(limit=1000)],
        [(item.key, item.version) for item in await manager.store.kv_scan("")],
        await manager.store.limits(),
    )


@pytest.mark.parametrize("job_id", IDS)
async def test_hostile_ids(client: httpx.AsyncClient, manager: AsyncJobManager, job_id: str) -> None:
    await manager.create_job("there")
    before = await everything(manager)
    for method, rest in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/events"),
                         ("GET", "/result"), ("GET", "/logs"), ("POST", "/share")):  # fmt: skip
        answer = await client.request(method, f"/api/jobs/{job_id}{rest}")
        assert answer.status_code < 500, (method, rest, answer.text)
        assert "\r" not in str(answer.headers)
    assert await everything(manager) == before


@pytest.mark.parametrize("number", range(len(BODIES)))
async def test_hostile_bodies(client: httpx.AsyncClient, manager: AsyncJobManager, number: int) -> None:
    headers = {"Content-Type": "application/json"}
    before = await everything(manager)
    for method, path in (("POST", "/api/jobs"), ("POST", "/api/jobs/bulk"), ("POST", "/api/keys"), ("PATCH", "/api/jobs/x"),
                         ("POST", "/api/session"), ("PATCH", "/api/job-types/x"), ("POST", "/api/webhooks")):  # fmt: skip
        answer = await client.request(method, path, content=BODIES[number], headers=headers)
        assert answer.status_code in (401, 404, 409, 413, 415, 422), (
            method,
            path,
            answer.status_code,
            answer.text[:300],
        )
        assert len(answer.content) < 20_000
    assert await everything(manager) == before


async def test_large_bodies_are_413_with_or_without_length(client: httpx.AsyncClient) -> None:
    big = b'{"job_type": "' + b"x" * 10_000_000 + b'"}'

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(big), 65536):
            yield big[start : start + 65536]

    headers = {"Content-Type": "application/json"}
    assert (await client.post("/api/jobs", content=big, headers=headers)).status_code == 413
    assert (await client.post("/api/jobs", content=chunks(), headers=headers)).status_code == 413


async def test_validation_error_does_not_echo_the_input(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/jobs", json={"job_type": "x", "k" * 500_000: 1})
    assert answer.status_code == 422
    assert len(answer.content) < 2000


@pytest.mark.parametrize("path", ["/api/jobs", "/api/jobs/bulk", "/api/keys", "/api/jobs/x/cancel"])
async def test_body_of_an_unknown_caller_is_not_read(memory: AsyncJobManager, path: str) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body is read")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"x-api-key", b"mp_0_0")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    await create_app(memory, auth=auth.api_keys())(scope, receive, send)
    assert sent[0]["status"] == 401


@pytest.mark.parametrize(
    ("body", "is_too_deep"),
    [(b"[" * 64 + b"]" * 64, False), (b"[" * 65 + b"]" * 65, True), (b"[" * 1_000_000, True), (b"[]" * 500_000, False),
     (b"[" * 64 + b"]" * 64 + b"[]" * 64, False), (b'{"a":[' * 33 + b"]}" * 33, True), (b'{"a":[' * 32 + b"1]}" * 32, False),
     (b'["[[",' * 70 + b"0" + b"]" * 70, True), (b'["[[[",' + b"[],{}," * 50 + b"0]", False), (b"[" * 90 + b"}" * 6, True)],
)  # fmt: skip
def test_depth_of_a_body_is_limited(body: bytes, is_too_deep: bool) -> None:
    assert (depth(body) > JSON_DEPTH) is is_too_deep


async def test_client_disconnect_during_body_is_not_an_error(memory: AsyncJobManager) -> None:
    parts = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"100")]
    scope = {"type": "http", "method": "POST", "path": "/api/jobs", "query_string": b"", "headers": headers}
    await create_app(memory, auth=auth.none())(scope, receive, send)
    assert sent[0]["status"] == 400


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
async def test_bodies_are_json_only(client: httpx.AsyncClient, media: str) -> None:
    headers = {"Content-Type": media} if media else {}
    assert (await client.post("/api/jobs", content=b"{}", headers=headers)).status_code == 415


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1000000000", "limit=1e9", "limit=NaN", "limit=-5", "cursor=%00", "cursor=AAAA", "cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk6eA",
     "q=%22", "q=%00", "q=created:99999999999d", "q=created:..", "q=duration:x..", "q=" + "a " * 900, "label=a", "label=:",
     "created_after=2026-01-01", "created_after=yesterday", "q=label.:x", "q=status:", "q=not.word", "q=%F0%9F%98%80"],
)  # fmt: skip
async def test_hostile_queries(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/api/jobs?{query}")
    assert answer.status_code in (200, 422), answer.text


@pytest.mark.parametrize("last", ["-1", "1e5", "9" * 40, "\xb2", "x", "0x10", "1;2"])
async def test_hostile_resume_points(client: httpx.AsyncClient, manager: AsyncJobManager, last: str) -> None:
    job = await manager.create_job()
    await manager.update_job(job.job_id, "completed")
    headers = [(b"last-event-id", last.encode("latin-1"))]
    answer = await client.get(f"/api/jobs/{job.job_id}/events", headers=headers)
    assert answer.status_code in (200, 204)
    for tag in ('"', "W/", "*", 'W/"v' + "9" * 50 + '"'):
        assert (await client.get(f"/api/jobs/{job.job_id}", headers={"If-None-Match": tag})).status_code < 400


HEADERS: list[tuple[str, bytes]] = [
    ("idempotency-key", b"x" * 10_000),
    ("idempotency-key", b"a/../b\xff*{}"),
    ("idempotency-key", b""),
    ("prefer", b"wait=" + b"9" * 400),
    ("prefer", b"wait=-1, wait=NaN"),
    ("traceparent", b"00-" + b"f" * 5000),
    ("authorization", b"Bearer " + b"_" * 5000),
    ("cookie", b"milepost_session=ms_*_x; " + b"a=b; " * 500),
    ("content-length", b"-5"),
    ("accept", b"\xff/\xfe"),
    ("host", b"\xe9vil"),
    ("origin", b"http://"),
]


@pytest.mark.parametrize(("name", "value"), HEADERS)
async def test_hostile_headers(client: httpx.AsyncClient, name: str, value: bytes) -> None:
    bad = b'{"job_type": "unknown type"}'
    given = [(b"content-type", b"application/json"), (name.encode(), value)]
    for method, path, body in (("POST", "/api/jobs", bad), ("GET", "/api/jobs", None), ("DELETE", "/api/jobs/x", None)):
        answer = await client.request(method, path, content=body, headers=given)
        assert answer.status_code < 500, (method, answer.text)


RAW = [
    b"GET /api/jobs/\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /api/jobs/a\rb HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /api/jobs/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET /api/jobs/\N{GRINNING FACE}{*} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(),
    b"GET /api/jobs?q=%00%0d%0a&limit=-1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"POST /api/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999999999999\r\n\r\n{",
    b"POST /api/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzz\r\n",
    b"DELETE /api/jobs/%2e%2e%2f%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"\x16\x03\x01\x02\x00" * 100,
]


def test_hostile_bytes_on_a_real_server() -> None:
    with Server() as server:
        server.drive("create_job", "there")
        for sent in RAW:
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as link:
                link.sendall(sent)
                link.shutdown(socket.SHUT_WR)
                answer = b""
                while data := link.recv(65536):
                    answer += data
            status = answer.split(b" ", 2)[1:2]
            assert not status or status[0][:1] in (b"2", b"4"), (sent[:60], answer[:200])
        assert [job["job_id"] for job in httpx.get(f"{server.url}/api/jobs").json()["jobs"]] == ["there"]


class Down:
    """A store whose every method fails."""

    blocking = False
    url = "down://"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def with_blocking(self, *, blocking: bool) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        async def fail(*args: Any, **kwargs: Any) -> Any:
            raise self._error

        return fail


CALLS = [
    ("GET", "/api/jobs", None), ("GET", "/api/jobs/x", None), ("POST", "/api/jobs/x/cancel", None),
    ("DELETE", "/api/jobs/x", None), ("POST", "/api/jobs", {"job_type": "x"}),
    ("POST", "/api/jobs", {"job_type": "x", "run_by": "manual"}), ("GET", "/api/jobs/x/events", None),
    ("GET", "/api/events", None), ("GET", "/api/stats", None), ("GET", "/api/failures", None), ("GET", "/api/workers", None),
    ("GET", "/api/job-types", None), ("GET", "/api/keys", None), ("GET", "/api/doctor", None), ("POST", "/api/purge", None),
    ("POST", "/api/jobs/bulk", {"action": "cancel", "q": ""}), ("GET", "/api/webhooks", None), ("GET", "/readyz", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status"),
    [(StoreUnavailableError("gone"), 503), (OutcomeUnknownError("late"), 503), (StoreFullError("full"), 507)],
    ids=["down", "unknown", "full"],
)
async def test_store_failure_is_503_or_507_with_retry_after(error: Exception, status: int) -> None:
    async with client_of(AsyncJobManager(Down(error))) as client:
        for method, path, body in CALLS:
            async with asyncio.timeout(PATIENCE):
                answer = await client.request(method, path, json=body)
            assert answer.status_code in (status, 503), (method, path, answer.status_code)
            assert answer.headers["retry-after"].isdigit()
            assert json.loads(answer.content)["status"] == answer.status_code
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200
