"""Attacks that must be refused: foreign jobs, filters, cursors, fields, keys, origins, hosts and bodies.

Each table is sent to a live server, and the store is checked afterwards. No response may be a 500.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from milepost.stores.sync_bridge import run_sync
from milepost.worker.registry import JobType, publish
from tests.security.live_server import LiveServer

pytestmark = pytest.mark.timing

JOB_CALLS: list[tuple[str, str, Any]] = [
    ("GET", "", None), ("PATCH", "", {"progress": 0.9}), ("PATCH", "", {"status": "completed", "result": 1}), ("DELETE", "", None),
    ("POST", "/cancel", {}), ("POST", "/cancel", {"reason": "mine"}), ("POST", "/retry", {}), ("POST", "/retry", {"only_failed": True}),
    ("GET", "/result", None), ("GET", "/attempts", None), ("GET", "/logs", None), ("GET", "/events", None),
    ("GET", "/share", None), ("POST", "/share", {}), ("POST", "/share", {"may_cancel": True}),
    ("DELETE", "/share/00", None), ("POST", "/share/00/rotate", {}),
]  # fmt: skip
FILTERS = [
    "label.tenant:a", "label.tenant:a label.tenant:b", "not.label.tenant:b", "id:{id}", "{id}", "secret-title", "status:pending",
    "type:a-type", "not.type:x", "label.tenant:*", "label.tenant:a\x1ftenant=b", "' OR 1=1 --", "label.tenant:%", "label.tenant:_",
    "created:1d", "is:active", "not.is:ended", "type:a-type,b-type", "label.tenant:", 'label."tenant":a',
]  # fmt: skip
CURSORS = [
    "0",
    "-1",
    "' OR 1=1 --",
    "MTox",
    "x" * 400,
    "MTAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwOg",
    "OjA",
    "\x00",
    "%00",
    "e30=",
]
POSITIONS = ["0", "0-0", "$", "*", "1" * 40, "-1", "0x1", "99999999999999999999-0", "a" * 64]
FIELDS: list[dict[str, Any]] = [
    {"labels": {"tenant": "a"}}, {"job_id": "chosen"}, {"created_by": "root"}, {"version": 9}, {"trace": "x"}, {"worker": "w"},
    {"status": "completed"}, {"result": 1}, {"progress": 1.0}, {"attempt": 9}, {"run_by": "external"}, {"origin": "local"},
    {"lease": "x"}, {"token": "x"}, {"ready": "x"}, {"labels": {"tenant": None}}, {"labels": {"a" * 200: "b"}}, {"scopes": ["admin"]},
    {"priority": 10**30}, {"max_attempts": -1}, {"timeout": -5}, {"unique_key": "a\nb"}, {"job_type": "x:failed"}, {"job_type": ".."},
    {"job_type": "kv:key/"}, {"job_type": "__proto__"}, {"job_type": "a" * 300}, {"job_type": ""}, {"receipt": {}},
]  # fmt: skip
ADMIN: list[tuple[str, str, Any]] = [
    ("GET", "/api/keys", None), ("POST", "/api/keys", {"name": "x", "scopes": ["admin"]}), ("DELETE", "/api/keys/000000000000", None),
    ("GET", "/api/webhooks", None), ("POST", "/api/webhooks", {"url": "https://example.org/"}), ("DELETE", "/api/webhooks/00", None),
    ("POST", "/api/webhooks/00/test", None), ("POST", "/api/webhooks/00/replay", {}), ("GET", "/api/workers", None),
    ("GET", "/api/doctor", None), ("POST", "/api/purge", None), ("PATCH", "/api/job-types/x", {"paused": True}), ("GET", "/metrics", None),
    ("POST", "/api/jobs/x/stop/forget", None),
]  # fmt: skip
HOSTS = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example.", "127.0.0.1@evil.example", "10.0.0.1", "[fe80::1]", "0.0.0.0", "192.168.1.5", "[::]", "2130706433", "-", "a" * 300]  # fmt: skip
ORIGINS = [
    {}, {"Origin": "null"}, {"Origin": "http://evil.example"}, {"Origin": "http://127.0.0.1"}, {"Origin": "http://127.0.0.1:1"},
    {"Origin": "x://127.0.0.1:{port}"}, {"Origin": "://127.0.0.1:{port}"},
    {"Origin": "http://localhost:{port}"}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "Same-Origin"}, {"Authorization": "Basic YTpi"}, {"X-API-Key": ""}, {"Authorization": "Bearer"},
]  # fmt: skip
PATHS = ["..%2f..%2fsite.py", "%2e%2e/%2e%2e/auth.py", "..%5c..%5cauth.py", "a%00.js", "assets/..%2f..%2fauth.py", "x" * 3000, "%2fetc%2fpasswd"]  # fmt: skip
JSON = {"Content-Type": "application/json"}
BODIES: list[tuple[dict[str, str], bytes, set[int]]] = [
    (JSON, b"[" * 100_000, {422}), (JSON, b'{"a":' * 100 + b"1" + b"}" * 100, {422}), (JSON, b"{", {422}), (JSON, b"\xff\xfe", {422}),
    (JSON, b'{"job_type":"x","run_by":"manual","job_type":"y"}', {201, 403, 422}), (JSON, b'{"job_type":"x","priority":1e400}', {422}),
    (JSON, b'{"job_type":"x","priority":NaN}', {422}), (JSON, b'{"job_type":"x","priority":' + b"9" * 4300 + b"}", {422}),
    (JSON, b'"' + b"x" * 1_100_000 + b'"', {413}), ({"Content-Type": "text/plain"}, b"{}", {415}), ({}, b"{}", {415}),
    ({"Content-Type": "application/x-www-form-urlencoded"}, b"job_type=x", {415}), ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x--", {415}),
    (JSON, b"null", {422}), (JSON, b"[]", {422}), (JSON, b'{"job_type":"\\ud800","run_by":"manual"}', {422}), (JSON, b"\x00", {422}),
]  # fmt: skip


@pytest.fixture(scope="module")
def tenants(live: LiveServer) -> dict[str, str]:
    """Create a key per tenant with all scopes but admin, and some that claim admin but are restricted to labels."""
    run_sync(publish(live.manager.store, [JobType("a-type"), JobType("b-type")]))
    every = ("jobs:read", "jobs:write", "jobs:delete", "jobs:cancel")
    keys = {name: live.key(*every, labels={"tenant": name}) for name in ("a", "b")}
    return {**keys, "bound-admin": live.key("admin", labels={"tenant": "b"}), "reader": live.key("jobs:read")}


@pytest.fixture
def web(live: LiveServer) -> Iterator[httpx.Client]:
    """Connect to the server, and assert that no response is a 500."""

    def no_defect(answer: httpx.Response) -> None:
        assert answer.status_code != 500, answer.request.url

    with httpx.Client(base_url=live.url, timeout=30, event_hooks={"response": [no_defect]}) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def job_of_a(live: LiveServer) -> str:
    """Create a job of tenant a, and return its id."""
    return live.manager.create_job(job_type="a-type", metadata={"title": "secret-title"}, labels={"tenant": "a"}).job_id


def test_job_of_another_tenant_looks_missing(live: LiveServer, web: httpx.Client, tenants: dict[str, str]) -> None:
    """Ids of other tenants must be indistinguishable from ids that do not exist."""
    job_id = job_of_a(live)
    before = live.manager.get_job(job_id)
    for key in ("b", "bound-admin"):
        for method, path, body in JOB_CALLS:
            answers = []
            for wanted in (job_id, "x" * len(job_id)):
                answer = web.request(method, f"/api/jobs/{wanted}{path}", json=body, headers=bearer(tenants[key]))
                headers = {name: value for name, value in answer.headers.items() if name != "date"}
                answers.append((answer.status_code, answer.text.replace(wanted, "ID"), headers))
            assert answers[0] == answers[1], (method, path)
    for action in ("cancel", "retry", "delete"):
        for dry in (True, False):
            body = {"action": action, "ids": [job_id], "dry_run": dry}
            answer = web.post("/api/jobs/bulk", json=body, headers=bearer(tenants["b"])).json()
            assert answer.get("matching", 0) == 0
            assert {one["outcome"] for one in answer.get("outcomes", [])} <= {"missing"}
    assert live.manager.get_job(job_id) == before


def test_filter_cursor_and_position_reveal_no_foreign_job(
    live: LiveServer, web: httpx.Client, tenants: dict[str, str]
) -> None:
    """Every filter is restricted to the tenant."""
    job_id = job_of_a(live)
    headers = bearer(tenants["b"])
    for q in FILTERS:
        for path in ("jobs", "failures", "stats"):
            answer = web.get(f"/api/{path}", params={"q": q.replace("{id}", job_id)}, headers=headers)
            assert answer.status_code in (200, 422)
            assert answer.status_code == 422 or job_id not in answer.text
            assert answer.status_code == 422 or "secret-title" not in answer.text
        body = {"action": "delete", "q": q.replace("{id}", job_id), "dry_run": False}
        web.post("/api/jobs/bulk", json=body, headers=headers)
    for parameters in (
        {"label": "tenant:a"},
        {"label": ["tenant:a", "tenant:b"]},
        {"job_type": "a-type"},
        {"status": "pending"},
    ):
        assert job_id not in web.get("/api/jobs", params=parameters, headers=headers).text
    for cursor in CURSORS:
        answer = web.get("/api/jobs", params={"cursor": cursor}, headers=headers)
        assert answer.status_code in (200, 422)
        assert job_id not in answer.text
    for position in POSITIONS:
        with web.stream("GET", "/api/events", params={"after": position}, headers=headers) as stream:
            assert stream.status_code in (200, 422)
            first = next(stream.iter_lines(), "")
            assert job_id not in first
        for name in ("Last-Event-ID", "after"):
            given = (
                {"headers": {**headers, name: position}}
                if name != "after"
                else {"headers": headers, "params": {name: position}}
            )
            assert web.get(f"/api/jobs/{job_id}/events", **given).status_code in (404, 422)  # type: ignore[arg-type]
    assert live.manager.get_job(job_id) is not None


def test_server_controlled_fields_are_refused(live: LiveServer, web: httpx.Client, tenants: dict[str, str]) -> None:
    """A submit must not set the tenant, the status or the origin."""
    headers = bearer(tenants["b"])
    for fields in FIELDS:
        answer = web.post("/api/jobs", json={"job_type": "b-type", **fields}, headers=headers)
        assert answer.status_code in (403, 422), (fields, answer.text)
    mine = web.post("/api/jobs", json={"job_type": "b-type"}, headers=headers).json()["job_id"]
    for fields in FIELDS:
        if set(fields) & {"status", "result", "progress"}:
            continue
        assert web.patch(f"/api/jobs/{mine}", json=fields, headers=headers).status_code == 422, fields
    for fields in ({"status": "completed", "result": 1}, {"progress": 1.0}):
        assert web.patch(f"/api/jobs/{mine}", json=fields, headers=headers).status_code == 409, "workers drive it"


def test_tenants_have_separate_unique_and_idempotency_keys(
    live: LiveServer, web: httpx.Client, tenants: dict[str, str]
) -> None:
    """The same key of two tenants must not return the other tenant's job."""
    made: dict[str, set[str]] = {"a": set(), "b": set()}
    for name in ("uk", "tenant=a/uk", "tenant=b/uk", "a/uk", "\\/uk", ",tenant=a/uk"):
        for tenant in ("a", "b"):
            for headers in ({}, {"Idempotency-Key": name}):
                body = {"job_type": "b-type", "unique_key": name}
                answer = web.post("/api/jobs", json=body, headers={**bearer(tenants[tenant]), **headers})
                assert answer.json()["labels"] == {"tenant": tenant}
                made[tenant].add(answer.json()["job_id"])
    assert not made["a"] & made["b"]


def test_admin_calls_refuse_other_scopes(live: LiveServer, web: httpx.Client, tenants: dict[str, str]) -> None:
    """A tenant, a restricted admin, a reader, a share link and a stranger must not administer anything."""
    token = web.post(f"/api/jobs/{job_of_a(live)}/share", headers=bearer(tenants["a"])).json()["token"]
    for method, path, body in ADMIN:
        for key in tenants.values():
            assert web.request(method, path, json=body, headers=bearer(key)).status_code == 403, path
        assert web.request(method, f"{path}?share={token}", json=body).status_code == 403, path
        assert web.request(method, path, json=body).status_code == 401, path


def test_malformed_revoked_and_expired_keys_are_refused(live: LiveServer, web: httpx.Client) -> None:
    """Only the exact secret of a valid key is accepted."""
    key = live.key("admin")
    kind, key_id, secret = key.split("_", 2)
    wrong = [
        "x", "mp", "mp_", "mp__", f"mp_{key_id}", f"mp_{key_id}_", f"mp__{secret}", f"{kind}_{key_id}_{secret}x", key[:-1],
        key.upper(), f"MP_{key_id}_{secret}", f"ms_{key_id}_{secret}", f"msl_{key_id}_{secret}", f"local_{secret}", f"once_{secret}",
        f"mp_{key_id}/../x_{secret}", f"mp_../{key_id}_{secret}", f"mp_*_{secret}", f"mp_{key_id}_{'A' * 43}", "A" * 5000, f"{key} {key}",
        live.key("admin", expires_in=0.0), f"mp_{key_id}%00_{secret}",
    ]  # fmt: skip
    dead = live.key("admin")
    run_sync(live.keys.revoke(dead.split("_")[1]))
    for text in (*wrong, dead):
        for headers in (
            {"Authorization": f"Bearer {text}"},
            {"X-API-Key": text},
            {"Cookie": f"milepost_session={text}"},
        ):
            assert web.get("/api/jobs", headers=headers).status_code in (400, 401), text
        assert web.get("/api/jobs", params={"share": text}).status_code == 401, text
    for scheme in ("Basic", "Token", "ApiKey", "Digest"):
        assert web.get("/api/jobs", headers={"Authorization": f"{scheme} {key}"}).status_code == 401
    assert web.get("/api/jobs", headers={"authorization": f"bEARER {key}"}).status_code == 200


def test_cross_site_request_with_session_is_refused(live: LiveServer, web: httpx.Client) -> None:
    """A page of another origin uses the cookie of a signed-in user."""
    job_id = job_of_a(live)
    web.post("/api/session", json={"key": live.key("admin")})
    calls = [
        (f"/api/jobs/{job_id}/cancel", None),
        ("/api/purge", None),
        ("/api/keys", {"name": "x", "scopes": ["admin"]}),
    ]
    for headers in ORIGINS:
        sent = {name: value.format(port=live.port) for name, value in headers.items()}
        for path, body in calls:
            assert web.post(path, json=body, headers=sent).status_code in (401, 403), (sent, path)
        assert web.delete("/api/session", headers=sent).status_code in (401, 403)
    kept = live.manager.get_job(job_id)
    assert kept is not None
    assert kept.status == "pending"
    assert web.post("/api/session", json={"key": "mp_0_0"}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    preflight = web.options(
        "/api/keys", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert not [name for name in preflight.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({}, "A request with a session cookie requires the header Sec-Fetch-Site: same-origin, or Origin; "
             "a program should send an API key (Authorization: Bearer) instead of the cookie"),
        ({"Sec-Fetch-Site": "same-site"}, "Cross-origin requests are not allowed (Sec-Fetch-Site: same-site)"),
        ({"Origin": "http://app.example"}, "Cross-origin requests are not allowed: Origin is http://app.example, this "
                                           "server is http://127.0.0.1:{port}; a proxy must pass the Host header"),
    ],
    ids=["curl", "fetch-site", "origin"],
)  # fmt: skip
def test_refused_request_names_reason(
    live: LiveServer, web: httpx.Client, headers: dict[str, str], problem: str
) -> None:
    web.post("/api/session", json={"key": live.key("admin")})
    answer = web.post("/api/jobs/any/cancel", headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (403, problem.format(port=live.port))


def test_odd_bodies_and_paths_are_refused(live: LiveServer, web: httpx.Client, tenants: dict[str, str]) -> None:
    """Bodies and paths that attack tools send get the right refusal, in time."""
    for headers, content, expected in BODIES:
        answer = web.post("/api/jobs", content=content, headers={**bearer(tenants["a"]), **headers})
        assert answer.status_code in expected, (content[:60], answer.text[:200])
    for path in PATHS:
        assert web.get(f"/jobs/{path}").status_code == 404, path
        assert web.get(f"/api/jobs/{path}", headers=bearer(tenants["a"])).status_code in (404, 422), path
    page = web.get("/jobs/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"


def test_job_texts_are_escaped(live: LiveServer, web: httpx.Client, tenants: dict[str, str]) -> None:
    """Markup, braces, SQL and control characters in texts are returned unchanged, or refused."""
    texts = [
        "<script>alert(1)</script>",
        "{0.__class__}",
        "${jndi:ldap://x}",
        "'; DROP TABLE jobs; --",
        "\u202e",
        "%s%n",
        "__proto__",
        "a\x1fb",
    ]
    for text in texts:
        body = {"job_type": "note", "run_by": "manual", "metadata": {"title": text, "k": {text: text}}}
        made = web.post("/api/jobs", json=body, headers=bearer(tenants["a"]))
        assert made.status_code in (201, 422)
        if made.status_code == 201:
            kept = web.get(f"/api/jobs/{made.json()['job_id']}", headers=bearer(tenants["a"]))
            assert kept.json()["metadata"] == body["metadata"]
            assert kept.headers["content-type"] == "application/json"
    numbers = web.get("/metrics", headers=bearer(live.key("admin"))).text
    assert not [
        line for line in numbers.splitlines() if line and not line.startswith(("#", "milepost_", "python_", "process_"))
    ]


def test_there_are_enough_attacks() -> None:
    """The tables are the suite: it must not pass with rows missing."""
    tables = (JOB_CALLS, FILTERS, CURSORS, POSITIONS, FIELDS, ADMIN, HOSTS, ORIGINS, PATHS, BODIES)
    assert sum(map(len, tables)) >= 150
