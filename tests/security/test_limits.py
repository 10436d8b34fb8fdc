"""Quotas of a key, slow clients, and what unauthenticated callers can learn."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from milepost.client import Client
from milepost.core.errors import InvalidInputError
from milepost.documents.configuration import Configuration
from milepost.settings import Settings
from milepost.stores.factory import open_store, redact_url
from milepost.stores.sync_bridge import run_sync
from milepost.web.webhooks.addresses import is_public
from milepost.web.webhooks.registry import WebhookEndpoint
from milepost.worker.registry import JobType, publish
from tests.security.live_server import LiveServer, cli
from tests.waiting import PATIENCE

pytestmark = pytest.mark.timing

SMALL = {
    "MILEPOST_AUTH": "keys",
    "MILEPOST_MAX_PENDING": "5",
    "MILEPOST_MAX_TYPES": "3",
    "MILEPOST_MAX_SESSIONS": "2",
    "MILEPOST_MAX_STREAMS": "2",
    "MILEPOST_REQUEST_TIMEOUT": "1",
}
SLOW = [
    b"",
    b"G",
    b"GET /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
    b"POST /api/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    b"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n5\r\n{",
]


@pytest.fixture(scope="module")
def small(place: tuple[str, str]) -> Iterator[LiveServer]:
    """Run a server with low limits."""
    with LiveServer(*place, **SMALL) as server:
        run_sync(publish(server.manager.store, [JobType("summary")]))
        yield server


def refused(answer: httpx.Response, limit: int) -> bool:
    """Return whether a response reports that a limit is reached."""
    return answer.status_code == 429 and int(answer.headers["retry-after"]) > 0 and answer.json()["limit"] == limit


def test_pending_jobs_of_a_key_are_limited(small: LiveServer) -> None:
    """One tenant filled the queue with thousands of jobs in seconds."""
    key, other = small.key("jobs:read", "jobs:write"), small.key("jobs:write", labels={"tenant": "b"})
    body = {"job_type": "summary"}
    made = [small.call("POST", "/api/jobs", key, json=body) for _ in range(6)]
    assert [answer.status_code for answer in made[:5]] == [201] * 5
    assert refused(made[5], 5)
    assert small.call("POST", "/api/jobs", other, json=body).status_code == 201, "others are not held up"
    assert small.call("POST", f"/api/jobs/{made[0].json()['job_id']}/cancel", key).status_code == 200
    assert small.call("POST", "/api/jobs", key, json=body).status_code == 201, "ended jobs do not count"
    assert refused(small.call("POST", "/api/jobs", key, json=body), 5)
    admin = small.key("admin")
    assert {small.call("POST", "/api/jobs", admin, json=body).status_code for _ in range(7)} == {201}


def test_retries_count_as_pending_jobs(small: LiveServer) -> None:
    """A tenant at its limit cancelled its jobs, submitted others, and retried the cancelled ones by the thousand."""
    key = small.key("jobs:read", "jobs:write")
    body = {"job_type": "summary"}
    cancelled = [small.call("POST", "/api/jobs", key, json=body).json()["job_id"] for _ in range(5)]
    bulk = {"action": "cancel", "ids": cancelled}
    assert small.call("POST", "/api/jobs/bulk", key, json=bulk).json()["done"] == 5
    assert {small.call("POST", "/api/jobs", key, json=body).status_code for _ in range(3)} == {201}
    retried = small.call("POST", "/api/jobs/bulk", key, json={**bulk, "action": "retry"}).json()
    assert (retried["done"], [one["outcome"] for one in retried["outcomes"]].count("refused")) == (2, 3)
    [left, *_] = [one["job_id"] for one in retried["outcomes"] if one["outcome"] == "refused"]
    for options in ({}, {"only_failed": True}):
        assert refused(small.call("POST", f"/api/jobs/{left}/retry", key, json=options), 5)
    assert small.call("POST", f"/api/jobs/{left}/retry", small.key("admin")).status_code == 200


def test_job_types_of_a_key_are_limited(small: LiveServer) -> None:
    """3,000 types of one tenant made the metrics and the list of types unusable."""
    key = small.key("jobs:read", "jobs:write", "jobs:delete")
    made = [small.call("POST", "/api/jobs", key, json={"job_type": f"t{n}", "run_by": "manual"}) for n in range(4)]
    assert [answer.status_code for answer in made[:3]] == [201] * 3
    assert refused(made[3], 3)
    assert small.call("POST", "/api/jobs", key, json={"job_type": "t0", "run_by": "manual"}).status_code == 201
    small.call("DELETE", f"/api/jobs/{made[1].json()['job_id']}", key)
    assert small.call("POST", "/api/jobs", key, json={"job_type": "t9", "run_by": "manual"}).status_code == 201


def test_sessions_of_a_key_are_limited(small: LiveServer) -> None:
    """500 sessions of one key were created in half a second, each kept for 12 hours."""
    key = small.key("jobs:read")
    with ExitStack() as stack:
        browsers = [stack.enter_context(httpx.Client(base_url=small.url)) for _ in range(3)]
        made = [browser.post("/api/session", json={"key": key}) for browser in browsers]
        assert [answer.status_code for answer in made[:2]] == [204, 204]
        assert refused(made[2], 2)
        assert browsers[0].delete("/api/session", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 204
        assert browsers[2].post("/api/session", json={"key": key}).status_code == 204


def test_streams_of_a_key_are_limited(small: LiveServer) -> None:
    """One read-only key kept 800 streams open."""
    job = small.manager.create_job()
    headers = {"Authorization": f"Bearer {small.key('jobs:read')}"}
    paths = ["/api/events", f"/api/jobs/{job.job_id}/events"]
    with httpx.Client(base_url=small.url, headers=headers) as client:
        with client.stream("GET", paths[0]) as one, client.stream("GET", paths[1]) as two:
            assert [one.status_code, two.status_code] == [200, 200]
            for path in paths:
                assert refused(client.get(path), 2)
            etag = {"If-None-Match": f'W/"v{job.version}"', "Prefer": "wait=5"}
            assert refused(client.get(f"/api/jobs/{job.job_id}", headers=etag), 2)
        token = small.call("POST", f"/api/jobs/{job.job_id}/share", small.key("jobs:read")).json()["token"]
        other = small.call("POST", f"/api/jobs/{job.job_id}/share", small.key("jobs:read")).json()["token"]
        with ExitStack() as stack:  # one link's streams could block those of other links
            for link, status in ((token, 200), (token, 200), (token, 429), (other, 200)):
                held = stack.enter_context(
                    client.stream("GET", f"{paths[1]}?share={link}", headers={"Authorization": ""})
                )
                assert held.status_code == status
        deadline = time.monotonic() + PATIENCE
        while True:  # the server notices closed connections with a delay
            with client.stream("GET", paths[0]) as again:
                if again.status_code == 200:
                    break
            assert time.monotonic() < deadline


def test_slow_client_is_closed(small: LiveServer) -> None:
    """Incomplete requests stayed open for ever; a few hundred of them blocked the server."""
    with ExitStack() as stack:
        sent = SLOW * 10
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", small.port), 30)) for _ in sent]
        for one, start in zip(slow, sent, strict=True):
            one.sendall(start)
        for one in slow:
            while one.recv(4096):
                pass  # possibly after a response, the server closed the connection


def test_responses_reveal_nothing_to_strangers(small: LiveServer) -> None:
    """Unauthenticated callers could read the store's kind and version, and browsers could interpret responses as pages."""
    assert small.call("GET", "/readyz").json() == {"status": "ok"}
    assert small.call("GET", "/readyz", small.key("jobs:read")).json() == {"status": "ok"}
    assert small.call("GET", "/readyz", "mp_0_0").json() == {"status": "ok"}
    assert small.call("GET", "/readyz", small.key("admin")).json()["version"] != ""
    admin = small.key("admin")
    for path in (
        "/api/jobs",
        "/api/jobs/absent",
        "/api/keys",
        "/api/session",
        "/healthz",
        "/readyz",
        "/absent",
        "/api/stats",
    ):
        for key in (None, admin):
            assert small.call("GET", path, key).headers["x-content-type-options"] == "nosniff", path


def test_https_cookie_has_host_prefix(small: LiveServer) -> None:
    """Another host of the domain, or plain http, could set the session cookie of a server behind https."""
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
    answer = small.call("POST", "/api/session", json={"key": small.key("jobs:read")}, headers=headers)
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert name == "__Host-milepost_session"
    assert {"httponly", "secure", "path=/", "samesite=strict"} <= {part.strip().lower() for part in rest.split(";")}
    assert "domain" not in rest.lower()
    cookie = {"Cookie": f"{name}={rest.partition(';')[0]}"}
    assert small.call("GET", "/api/jobs", headers={**headers, **cookie}).status_code == 200
    assert small.call("GET", "/api/jobs", headers=cookie).status_code == 401
    for scheme, status in (("https", 404), ("http", 403)):  # plain http is a different origin than https
        origin = {"Origin": f"{scheme}://127.0.0.1:{small.port}"}
        forged = small.call("DELETE", "/api/jobs/absent/share/00", headers={**headers, **cookie, **origin})
        assert forged.status_code == status
    planted = {"Cookie": f"milepost_session={rest.partition(';')[0]}"}
    assert small.call("GET", "/api/jobs", headers={**headers, **planted}).status_code == 401


@pytest.mark.parametrize(
    "address",
    ["192.0.0.192", "192.0.0.8", "192.88.99.1", "3fff::1", "3fff:fff::1", "64:ff9b::c000:c0", "::ffff:192.0.0.192", "2002:c000:c0::1",
     "64:ff9b:1::1", "5f00::1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "fd00::1", "fe80::1", "::", "0.0.0.0", "224.0.0.1"],
)  # fmt: skip
def test_webhook_to_special_address_is_refused(address: str) -> None:
    """Some Python releases report addresses as public that clouds have used for their metadata."""
    assert not is_public(address)


def test_credentials_in_urls_are_never_shown() -> None:
    """Errors showed the key in the query of a URL."""
    done = cli("--url", "http://127.0.0.1:1/?key=hunter2", "ls")
    assert (done.returncode, "MILEPOST_KEY" in done.stderr, "hunter2" in done.stderr) == (2, True, False)
    for url in ("http://h/?key=hunter2", "https://h#hunter2", "ftp://u:hunter2@h"):
        with pytest.raises(InvalidInputError) as error:
            Client(url)
        assert "hunter2" not in str(error.value)
    assert "hunter2" not in repr(Client("http://u:hunter2@h"))
    assert "hunter2" not in repr(Settings(url="postgresql://u:hunter2@h/db", redis_url="redis://:hunter2@h"))
    assert "hunter2" not in repr(
        Configuration(llm_key="hunter2", embedding_url="http://u:hunter2@h", rerank_key="hunter2")
    )
    assert "hunter2" not in repr(WebhookEndpoint("h", "https://h/", ("failed",), "", "whsec_hunter2", 0))
    for url in (
        "http://h?key=hunter2",
        "foo://h/?a=b&password=hunter2&hunter2#hunter2",
        "sqlite://u:hunter2@h",
        "foo:?hunter2",
    ):
        assert "hunter2" not in redact_url(url)
        with pytest.raises(InvalidInputError) as error:
            open_store(url, namespace="milepost")
        assert "hunter2" not in str(error.value)
    assert redact_url("sqlite:////srv/jobs.db") == "sqlite:////srv/jobs.db"
