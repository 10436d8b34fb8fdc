"""Applications with their own authentication: values of dependencies, forged requests, and the application's own
routes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    HTTPBasic,
    HTTPBearer,
    OAuth2AuthorizationCodeBearer,
    OAuth2PasswordBearer,
    OpenIdConnect,
)

from milepost import AsyncJobs, JobManager
from milepost.core.errors import InvalidInputError
from milepost.settings import Settings
from milepost.stores.sync_bridge import run_sync
from milepost.web import Principal, attach
from milepost.web.security.api_keys import ApiKeyStore
from tests.security.test_attacks import HOSTS
from tests.web.server import Server

pytestmark = pytest.mark.timing
GIVEN = {
    "nothing", "false", "true", "empty", "blank", "guest", "no-id", "anonymous", "unnamed", "text", "object", "mapping", "principal",
    "tenant", "chief", "blank-principal", "invisible", "no-ids", "class", "method",
}  # fmt: skip
STRANGERS = [
    "nothing", "false", "true", "empty", "blank", "guest", "no-id", "anonymous", "unnamed", "blank-principal", "invisible", "no-ids",
    "class", "method",
]  # fmt: skip
SCHEMES = [
    OAuth2PasswordBearer("token"), APIKeyHeader(name="X-Key"), APIKeyCookie(name="session"), APIKeyQuery(name="key"), HTTPBearer(),
    HTTPBasic(), OpenIdConnect(openIdConnectUrl="u"), OAuth2AuthorizationCodeBearer("a", "t"),
]  # fmt: skip
USERS = ["text", "object", "mapping", "principal"]
ADMIN_CALLS = [
    ("GET", "/api/keys"), ("POST", "/api/keys"), ("GET", "/api/doctor"), ("GET", "/api/workers"), ("GET", "/metrics"),
    ("POST", "/api/purge"), ("GET", "/api/webhooks"), ("PATCH", "/api/job-types/x"),
]  # fmt: skip
BODIES = {"/api/keys": {"name": "x", "scopes": ["admin"]}, "/api/job-types/x": {"paused": True}}
CROSS = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {
        "Sec-Fetch-Site": "cross-site",
        "Origin": "https://evil.example",
        "Content-Type": "application/x-www-form-urlencoded",
    },
]
AMBIENT = [
    "Basic " + base64.b64encode(b"ana:x").decode(),
    "Negotiate YII=",
    "Digest username=ana",
    "NTLM TlRM",
    "bearer",
]


@pytest.fixture(scope="module")
def guarded(place: tuple[str, str]) -> Iterator[Server]:
    """Run the applications of `guarded_app`."""
    with Server(place[0], app="tests.security.guarded_app:app", TEST_NAMESPACE=place[1]) as server:
        yield server


@pytest.fixture(scope="module")
def manager(place: tuple[str, str]) -> Iterator[JobManager]:
    """Return the jobs of the applications."""
    manager = JobManager(place[0], options=Settings(namespace=place[1]))
    yield manager
    manager.close()


class Caller(httpx.Client):
    """A client of the applications. A path that begins with the value of the dependency goes to /given."""

    def request(self, method: str, url: Any, **options: Any) -> httpx.Response:
        name, _, rest = str(url).removeprefix("/").partition("/")
        if name in GIVEN:
            headers = {**(options.pop("headers", None) or {}), "X-Give": name}
            return super().request(method, f"/given/{rest}", headers=headers, **options)
        return super().request(method, url, **options)


@pytest.fixture(scope="module")
def http(guarded: Server) -> Iterator[httpx.Client]:
    """Return a client of the applications."""
    with Caller(base_url=guarded.url, timeout=30) as client:
        yield client


@pytest.mark.parametrize("name", STRANGERS)
def test_dependency_without_user_is_401(http: httpx.Client, name: str) -> None:
    """A dependency for an optional user returned None, and the unknown caller was an admin."""
    for method, path in [("GET", "/api/session"), ("GET", "/api/jobs"), ("GET", "/mine"), *ADMIN_CALLS]:
        answer = http.request(method, f"/{name}{path}", json=BODIES.get(path) if method != "GET" else None)
        assert answer.status_code == 401, (path, answer.text)


@pytest.mark.parametrize("name", USERS)
def test_application_user_is_not_admin(http: httpx.Client, name: str) -> None:
    """Each user of an application that returns a string or an object was an admin of all jobs, keys and webhooks."""
    session = http.get(f"/{name}/api/session").json()
    assert session["scopes"] == ["jobs:delete", "jobs:read", "jobs:write"]
    for method, path in ADMIN_CALLS:
        answer = http.request(method, f"/{name}{path}", json=BODIES.get(path) if method != "GET" else None)
        assert answer.status_code == 403, (path, answer.text)
    made = http.post(f"/{name}/api/jobs", json={"run_by": "manual", "job_type": "script"})
    assert made.status_code == 201
    assert http.delete(f"/{name}/api/jobs/{made.json()['job_id']}").status_code == 200


def test_only_explicit_admin_is_admin(http: httpx.Client) -> None:
    """An explicit scope makes a user an admin."""
    assert http.get("/chief/api/keys").status_code == 200
    assert http.get("/tenant/api/session").json()["labels"] == {"owner": "ana"}


@pytest.mark.parametrize(
    ("name", "authorization"), [*(("open", one) for one in (None, *AMBIENT)), ("basic", AMBIENT[0]), ("text", None)]
)
def test_cross_origin_request_is_refused(
    http: httpx.Client, manager: JobManager, name: str, authorization: str | None
) -> None:
    """Any Authorization header disabled the origin check, but browsers add Basic and Negotiate to forged requests too."""
    job = manager.create_job()
    headers = {"Authorization": authorization} if authorization is not None else {}
    for forged in CROSS:
        for path in (f"jobs/{job.job_id}/cancel", "purge", f"jobs/{job.job_id}/retry", f"jobs/{job.job_id}/share"):
            assert http.post(f"/{name}/api/{path}", headers={**headers, **forged}).status_code == 403, (forged, path)
        assert http.delete(f"/{name}/api/jobs/{job.job_id}", headers={**headers, **forged}).status_code == 403
        assert http.post(f"/{name}/mine", headers={**headers, **forged}).status_code == 403
    kept = manager.get_job(job.job_id)
    assert kept is not None
    assert kept.status == "pending"
    same = {**headers, "Sec-Fetch-Site": "same-origin"}
    assert http.post(f"/{name}/api/jobs/{job.job_id}/cancel", headers=same).status_code == 200


def test_key_in_a_header_passes_the_origin_check(http: httpx.Client) -> None:
    """A page cannot make a browser send a Bearer token or X-API-Key, so a script that sends one needs no origin."""
    for headers in ({"Authorization": "Bearer x"}, {"X-API-Key": "x"}):
        answer = http.post("/open/api/jobs/absent/cancel", headers={**headers, "Origin": "https://tool.example"})
        assert answer.status_code == 404


def test_behind_proxy_must_be_explicit(http: httpx.Client) -> None:
    """An application without authentication treated visitors of its proxy as the user of this machine."""
    for path in ("/api/jobs", "/mine"):
        assert http.get(f"/open{path}", headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 403
        assert http.get(f"/proxied{path}", headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 200


def test_foreign_host_is_refused_without_auth(http: httpx.Client) -> None:
    """With DNS rebinding, a page of another site had full access to an application with `auth.none()`."""
    for host in HOSTS:
        forged = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        for method, path in (("GET", "/api/jobs"), ("GET", "/api/jobs/x"), ("POST", "/api/jobs"), ("GET", "/mine")):
            body = {"job_type": "x", "run_by": "manual"} if method == "POST" else None
            assert http.request(method, f"/open{path}", headers=forged, json=body).status_code in (400, 421), host
    for host in ("localhost:1", "127.0.0.1", "[::1]:80"):
        assert http.get("/open/api/jobs", headers={"Host": host}).status_code == 200
    assert http.get("/proxied/api/jobs", headers={"Host": "jobs.example.org"}).status_code == 200


def test_own_routes_are_protected_by_any_auth(http: httpx.Client, manager: JobManager) -> None:
    """`Depends(auth.api_keys())` was a TypeError, so an application's own routes stayed open or needed a second check."""
    keys = ApiKeyStore(manager.store)
    reader = {"Authorization": "Bearer " + run_sync(keys.create("r", ["jobs:read"], labels={"t": "a"}))[1]}
    writer = {"X-API-Key": run_sync(keys.create("w", ["jobs:write"]))[1]}
    assert http.get("/keys/mine").status_code == 401
    assert http.get("/keys/mine", headers={"Authorization": "Bearer mp_0_0"}).status_code == 401
    assert http.get("/keys/mine", headers=reader).json()["labels"] == {"t": "a"}
    assert http.post("/keys/mine", headers=reader).status_code == 403
    assert http.post("/keys/mine", headers=writer).status_code == 200
    assert http.get("/text/mine").json()["id"] == "ana"
    assert http.get("/object/mine").json()["id"] == "7"
    assert http.post("/text/mine").json() == {"id": "ana"}
    assert http.get("/basic/mine").status_code == 401
    assert http.get("/basic/mine", auth=("ana", "x")).json()["id"] == "ana"
    assert http.get("/open/mine").json() == {"id": None, "labels": {}}
    # uvicorn closes a connection after an exception, so this one is not shared with other tests.
    answer = httpx.get(f"{http.base_url}/mine", headers=reader)
    assert answer.status_code == 500, "no attach: closed, with the reason in the log"


def test_job_or_404_hides_jobs_of_others(http: httpx.Client, manager: JobManager) -> None:
    keys = ApiKeyStore(manager.store)
    job = manager.create_job(labels={"t": "a"})
    named = {
        "reader": (["jobs:read"], {"t": "a"}),
        "other": (["jobs:read"], {"t": "b"}),
        "writer": (["jobs:write"], {}),
    }
    headers = {
        name: {"X-API-Key": run_sync(keys.create(name, scopes, labels=labels))[1]}
        for name, (scopes, labels) in named.items()
    }
    found = {name: http.get(f"/keys/mine/{job.job_id}", headers=given) for name, given in headers.items()}
    assert {name: answer.status_code for name, answer in found.items()} == {"reader": 200, "other": 404, "writer": 403}
    assert found["reader"].json() == {"status": "pending"}
    absent = http.get("/keys/mine/absent", headers=headers["reader"])
    assert (absent.status_code, absent.content) == (404, found["other"].content)
    assert http.get(f"/keys/mine/{job.job_id}").status_code == 401
    assert http.get(f"/text/mine/{job.job_id}").json() == {"status": "pending"}
    assert http.get(f"/basic/mine/{job.job_id}").status_code == 401


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: type(scheme).__name__)
def test_security_scheme_as_auth_is_refused(scheme: Any) -> None:
    """`auth=OAuth2PasswordBearer(...)` accepted every caller, because the unchecked credential counted as a user name."""
    for given in (scheme, Depends(scheme)):
        with pytest.raises(InvalidInputError, match="verifies it"):
            attach(FastAPI(), AsyncJobs("memory://"), auth=given)


def test_invalid_principal_is_refused() -> None:
    """`labels={"owner": None}` for a user without a tenant showed all jobs without that label; a string was a set of
    scopes.
    """
    for options in ({"labels": {"owner": None}}, {"labels": None}, {"labels": {"owner": 5}}, {"scopes": "admin"},
                    {"scopes": ["jobs:raed"]}, {"scopes": None}, {"types": "ingestion"}):  # fmt: skip
        with pytest.raises(InvalidInputError):
            Principal("ana", **options)  # type: ignore[arg-type]
