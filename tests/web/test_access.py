"""Permissions: routes and scopes, isolation of principals, keys, cookies, share links and origins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException

from milepost import AsyncJobManager, AsyncJobs, Run
from milepost.core.errors import InvalidInputError
from milepost.web import Principal, attach, auth, create_app, create_router
from milepost.web.security.api_keys import ApiKeyStore
from milepost.web.security.principals import SCOPES
from tests.web.conftest import client_of
from tests.web.route_table import BODIES, NEEDS, OPEN, path_of

Key = dict[str, str]


@pytest.fixture
async def app(memory: AsyncJobManager) -> FastAPI:
    return create_app(memory, auth=auth.api_keys())


@pytest.fixture
async def web(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        yield client


async def key(manager: AsyncJobManager, *scopes: str, **options: Any) -> Key:
    """Create a key, and return its header."""
    _, secret = await ApiKeyStore(manager.store).create("test", scopes, **options)
    return {"Authorization": f"Bearer {secret}"}


def test_route_table_is_complete(app: FastAPI) -> None:
    documented = {(method.upper(), path) for path, calls in app.openapi()["paths"].items() for method in calls}
    assert documented == set(NEEDS) | OPEN


@pytest.mark.parametrize(("method", "template"), sorted(NEEDS))
async def test_route_requires_its_scope(
    web: httpx.AsyncClient, memory: AsyncJobManager, method: str, template: str
) -> None:
    call = (method, template)
    options: dict[str, Any] = {"json": BODIES[call]} if call in BODIES else {}
    path = path_of(template)
    streams = path == "/api/events"

    assert (await web.request(method, path, **options)).status_code == 401
    assert (await web.request(method, path, headers={"Authorization": "Bearer mp_a_b"}, **options)).status_code == 401
    needed = NEEDS[call]
    for scope in SCOPES:
        headers = await key(memory, scope)
        allowed = (
            needed is None
            or scope in (needed, "admin")
            or (scope == "jobs:write" and needed in ("jobs:cancel", "jobs:answer"))
        )
        if (streams and allowed) or template.endswith("bulk"):
            continue  # an endless response, covered by the stream tests; and a scope that depends on the action
        answer = await web.request(method, path, headers=headers, **options)
        assert (answer.status_code != 403) is allowed, (scope, answer.text)


@pytest.mark.parametrize(
    ("action", "scope"),
    [("cancel", "jobs:write"), ("cancel", "jobs:cancel"), ("retry", "jobs:write"), ("delete", "jobs:delete")],
)
async def test_bulk_requires_the_scope_of_its_action(
    web: httpx.AsyncClient, memory: AsyncJobManager, action: str, scope: str
) -> None:
    body = {"action": action, "ids": []}
    assert (await web.post("/api/jobs/bulk", json=body, headers=await key(memory, scope))).status_code == 200
    assert (await web.post("/api/jobs/bulk", json=body, headers=await key(memory, "jobs:read"))).status_code == 403


async def test_foreign_id_response_equals_missing_id_response(web: httpx.AsyncClient, memory: AsyncJobManager) -> None:
    theirs = await memory.create_job("theirs", labels={"owner": "bob"})
    ana = await key(memory, "jobs:read", "jobs:write", "jobs:delete", labels={"owner": "ana"})
    for (method, template), scope in NEEDS.items():
        if "{job_id}" not in template or scope == "admin":
            continue
        body = BODIES.get((method, template))
        answers = []
        for job_id in ("theirs", "absent"):
            path = template.replace("{job_id}", job_id)
            answer = await web.request(method, path, headers=ana, json=body)
            answers.append((answer.status_code, answer.content.replace(job_id.encode(), b"ID"), sorted(answer.headers)))
        assert answers[0] == answers[1], (method, template)
    bulk = {"action": "delete", "ids": ["theirs", "absent"]}
    outcomes = (await web.post("/api/jobs/bulk", json=bulk, headers=ana)).json()["outcomes"]
    assert [one["outcome"] for one in outcomes] == ["missing", "missing"]
    kept = await memory.get_job("theirs")
    assert kept is not None
    assert kept.version == theirs.version


async def test_lists_and_stats_show_only_visible_jobs(web: httpx.AsyncClient, memory: AsyncJobManager) -> None:
    for owner in ("ana", "bob", "bob"):
        job = await memory.create_job(labels={"owner": owner})
        await memory.update_job(job.job_id, "failed", error=f"{owner}: no")
    ana = await key(memory, "jobs:read", labels={"owner": "ana"})
    listed = (await web.get("/api/jobs", headers=ana)).json()
    assert (len(listed["jobs"]), listed["total"]) == (1, 1)
    assert (await web.get("/api/jobs?label=owner:bob", headers=ana)).json()["jobs"] == []
    assert (await web.get("/api/stats", headers=ana)).json()["counts"] == {"generic": {"failed": 1}}
    assert [group["count"] for group in (await web.get("/api/failures", headers=ana)).json()["groups"]] == [1]
    dry = {"action": "delete", "q": "", "dry_run": True}
    ana_all = await key(memory, "jobs:read", "jobs:delete", labels={"owner": "ana"})
    assert (await web.post("/api/jobs/bulk", json=dry, headers=ana_all)).json()["matching"] == 1


async def test_bound_principal_submits_only_with_its_labels(memory: AsyncJobManager) -> None:
    jobs = AsyncJobs(memory.store)
    jobs.worker()

    @jobs.job("reindex")
    def reindex(run: Run) -> None: ...

    headers = [await key(memory, "jobs:read", "jobs:write", labels={"owner": owner}) for owner in ("ana", "bob")]
    async with client_of(jobs, auth.api_keys()) as web:
        body = {"job_type": "reindex", "unique_key": "nightly"}
        made = [await web.post("/api/jobs", json=body, headers={**one, "Idempotency-Key": "k"}) for one in headers]
        assert [answer.status_code for answer in made] == [201, 201]
        assert [answer.json()["labels"] for answer in made] == [{"owner": "ana"}, {"owner": "bob"}]
        assert (await web.post("/api/jobs", json={**body, "job_id": "mine"}, headers=headers[0])).status_code == 422
        stolen = {**body, "labels": {"owner": "bob"}}
        assert (await web.post("/api/jobs", json=stolen, headers=headers[0])).status_code == 422


async def test_bound_principal_chooses_only_its_own_partition(memory: AsyncJobManager) -> None:
    jobs = AsyncJobs(memory.store)
    jobs.worker()

    @jobs.job("reindex")
    def reindex(run: Run) -> None: ...

    bound = await key(memory, "jobs:read", "jobs:write", labels={"tenant": "acme"})
    free = await key(memory, "jobs:read", "jobs:write")
    async with client_of(jobs, auth.api_keys()) as web:
        for name, value, remedy in (("limit_key", "api", "omit it"), ("partition", "globex", "omit it")):
            options = {name: value}
            answers = [await web.post("/api/jobs", json={"job_type": "reindex", **options}, headers=bound)]
            schedule = {"job_type": "reindex", "every": 3600, "options": options}
            answers.append(await web.put("/api/schedules/hourly", json=schedule, headers=bound))
            for answer in answers:
                assert answer.status_code == 422, answer.text
                assert name in answer.text
                assert remedy in answer.text
            assert (
                await web.post("/api/jobs", json={"job_type": "reindex", **options}, headers=free)
            ).status_code == 201
        own = await web.post("/api/jobs", json={"job_type": "reindex", "partition": "acme"}, headers=bound)
        assert (own.status_code, own.json()["partition"]) == (201, "acme")


@pytest.mark.parametrize(
    ("labels", "keys"),
    [
        (({"team": "a"}, {"team": "a/b"}), ("b/nightly", "nightly")),
        (({"team": "a", "user": "b"}, {"team": "a,user=b"}), ("nightly", "nightly")),
    ],
)
async def test_similar_labels_share_no_unique_or_idempotency_key(
    memory: AsyncJobManager, labels: tuple[dict[str, str], ...], keys: tuple[str, ...]
) -> None:
    jobs = AsyncJobs(memory.store)
    jobs.worker()

    @jobs.job("reindex")
    def reindex(run: Run) -> None: ...

    headers_of = [await key(memory, "jobs:read", "jobs:write", labels=one) for one in labels]
    async with client_of(jobs, auth.api_keys()) as web:
        for headers, name, bound in zip(headers_of, keys, labels, strict=True):
            body = {"job_type": "reindex", "unique_key": name}
            made = await web.post("/api/jobs", json=body, headers={**headers, "Idempotency-Key": "k"})
            assert (made.status_code, made.json()["labels"]) == (201, bound)
            counts = (await web.get("/api/stats", headers=headers)).json()["counts"]
            assert sum(counts["reindex"].values()) == 1


async def test_bound_admin_is_not_admin(web: httpx.AsyncClient, memory: AsyncJobManager) -> None:
    bound = await key(memory, "admin", labels={"owner": "ana"})
    assert (await web.get("/api/keys", headers=bound)).status_code == 403
    assert (await web.get("/metrics", headers=bound)).status_code == 403


async def test_keys_are_shown_once_and_expire_or_are_revoked(web: httpx.AsyncClient, memory: AsyncJobManager) -> None:
    admin = await key(memory, "admin")
    made = (await web.post("/api/keys", headers=admin, json={"name": "ci", "scopes": ["jobs:read"]})).json()
    assert made["secret"].startswith(f"mp_{made['id']}_")
    listed = (await web.get("/api/keys", headers=admin)).text
    assert made["id"] in listed
    assert made["secret"].split("_", 2)[2] not in listed
    entries = [item.value for item in await memory.store.kv_scan("key/")]
    assert not any(made["secret"].split("_", 2)[2] in value for value in entries)
    assert (await web.get("/api/jobs", headers={"X-API-Key": made["secret"]})).status_code == 200
    assert (await web.delete(f"/api/keys/{made['id']}", headers=admin)).status_code == 204
    assert (await web.get("/api/jobs", headers={"X-API-Key": made["secret"]})).status_code == 401
    expired = await key(memory, "admin", expires_in=0.0)
    assert (await web.get("/api/jobs", headers=expired)).status_code == 401
    assert (await web.post("/api/keys", headers=admin, json={"name": "x", "scopes": ["root"]})).status_code == 422


async def test_session_cookie_is_httponly_and_same_origin(web: httpx.AsyncClient, memory: AsyncJobManager) -> None:
    secret = (await key(memory, "jobs:read", "jobs:write"))["Authorization"].split()[1]
    assert (await web.post("/api/session", json={"key": "mp_a_b"})).status_code == 401
    signed = await web.post("/api/session", json={"key": secret})
    assert signed.status_code == 204
    cookie = signed.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert secret.lower() not in cookie
    assert (await web.get("/api/session")).json()["scopes"] == ["jobs:read", "jobs:write"]
    job = await memory.create_job()
    path = f"/api/jobs/{job.job_id}/cancel"
    for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"},
                    {"Origin": "http://evil.example"}, {"Origin": "null"}):  # fmt: skip
        assert (await web.post(path, headers=headers)).status_code == 403, headers
    assert (await web.post(path, headers={"Origin": "http://testserver"})).status_code == 200
    assert (await web.delete("/api/session", headers={"Sec-Fetch-Site": "same-origin"})).status_code == 204
    assert (await web.get("/api/session")).status_code == 401


async def test_cross_origin_write_without_keys_is_refused(memory: AsyncJobManager) -> None:
    job = await memory.create_job()
    async with client_of(memory) as web:
        path = f"/api/jobs/{job.job_id}/cancel"
        assert (await web.post(path, headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403
        assert (await web.post(path, headers={"Origin": "http://evil.example"})).status_code == 403
        assert (await web.post("/api/jobs", content=b"{}", headers={"Content-Type": "text/plain"})).status_code == 415
        assert (await web.post(path)).status_code == 200


async def test_share_link_reads_one_job_until_it_expires(web: httpx.AsyncClient, memory: AsyncJobManager) -> None:
    job, other = await memory.create_job(), await memory.create_job()
    owner = await key(memory, "jobs:read", "jobs:write")
    made = await web.post(f"/api/jobs/{job.job_id}/share", headers=owner)
    link = made.json()
    assert made.status_code == 201
    assert (await web.get(link["path"])).json()["job_id"] == job.job_id
    assert (await web.get(f"/api/jobs/{other.job_id}?share={link['token']}")).status_code == 404
    assert [j["job_id"] for j in (await web.get(f"/api/jobs?share={link['token']}")).json()["jobs"]] == [job.job_id]
    assert (await web.post(f"/api/jobs/{job.job_id}/cancel?share={link['token']}")).status_code == 403
    assert (await web.delete(f"/api/jobs/{job.job_id}?share={link['token']}")).status_code == 403
    assert (await web.get(link["path"] + "x")).status_code == 401
    options = {"may_cancel": True, "expires_in": 60}
    may = (await web.post(f"/api/jobs/{job.job_id}/share", headers=owner, json=options)).json()["token"]
    assert (await web.post(f"/api/jobs/{job.job_id}/retry?share={may}")).status_code == 403
    assert (await web.post(f"/api/jobs/{job.job_id}/cancel?share={may}")).status_code == 200


async def test_long_poll_ends_when_job_is_recreated(
    app: FastAPI, web: httpx.AsyncClient, memory: AsyncJobManager
) -> None:
    """A long poll for a deleted job returned the next job with its id, even to callers who may not see that one."""
    reader = await key(memory, "jobs:read", labels={"owner": "ana"})
    for labels in ({"owner": "ana"}, {"owner": "bob"}):
        await memory.create_job("again", labels={"owner": "ana"})
        poll = {**reader, "If-None-Match": 'W/"v1"', "Prefer": "wait=20"}
        polling = asyncio.create_task(web.get("/api/jobs/again", headers=poll))
        while app.state.milepost.hub.clients == 0:
            await asyncio.sleep(0.01)
        await memory.delete_job("again")
        await memory.create_job("again", labels=labels, metadata={"title": "hunter2"})
        await memory.update_job("again", "running")
        assert (await polling).status_code == 404
        await memory.delete_job("again")


async def test_fastapi_dependency_as_auth(memory: AsyncJobManager) -> None:
    async def current_user(x_user: str = Header("")) -> Any:
        if not x_user:
            raise HTTPException(401, "Who are you?", {"WWW-Authenticate": "Custom"})
        return Principal(x_user, frozenset({"jobs:read"}), {"owner": x_user}) if x_user == "ana" else x_user

    await memory.create_job("one", labels={"owner": "bob"})
    app = FastAPI()
    attach(app, memory, auth=current_user)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as web:
        refused = await web.get("/api/jobs/one")
        assert (refused.status_code, refused.json()["detail"]) == (401, "Who are you?")
        assert refused.headers["www-authenticate"] == "Custom"
        assert (await web.get("/api/jobs/one", headers={"X-User": "root"})).status_code == 200
        assert (await web.get("/api/jobs/one", headers={"X-User": "ana"})).status_code == 404
        assert (await web.delete("/api/jobs/one", headers={"X-User": "ana"})).status_code == 403


async def test_multiline_user_name_cannot_inject_record_fields(sqlite_url: str) -> None:
    manager = AsyncJobManager(sqlite_url)
    await manager.create_job("one")
    app = FastAPI()
    attach(app, manager, auth=lambda: "eve\nl=team=b")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as web:
        answer = await web.post("/api/jobs/bulk", json={"action": "cancel", "ids": ["one"]})
        assert answer.json()["outcomes"] == [{"job_id": "one", "outcome": "done"}]
        assert (await web.get("/api/jobs/one")).json()["labels"] == {}
    await manager.close()


async def test_second_attach_is_refused(memory: AsyncJobManager) -> None:
    other = AsyncJobManager("memory://")
    await other.create_job("there")
    app = FastAPI()
    attach(app, memory, auth=auth.none())
    with pytest.raises(InvalidInputError, match=r"app\.mount\('/other', create_app"):
        attach(app, other, auth=auth.none(), dashboard="/other-jobs")
    app.mount("/other", create_app(other, auth=auth.none()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as web:
        assert (await web.get("/api/jobs")).json()["jobs"] == []
        assert [job["job_id"] for job in (await web.get("/other/api/jobs")).json()["jobs"]] == ["there"]


async def test_dependencies_of_include_router_run(memory: AsyncJobManager) -> None:
    def refuse() -> None:
        raise HTTPException(418, "not you")

    await memory.create_job("one")
    for included in (True, False):
        app = FastAPI(dependencies=[] if included else [Depends(refuse)])
        options = {"dependencies": [Depends(refuse)]} if included else {}
        app.include_router(create_router(memory, auth=auth.none()), prefix="/x", **options)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as web:
            assert (await web.get("/x/api/jobs/one")).status_code == 418
            assert (await web.get("/x/api/jobs")).status_code == 418


@pytest.mark.parametrize("place", ["application", "included routes"])
async def test_dependencies_of_application_run(memory: AsyncJobManager, place: str) -> None:
    def refuse() -> None:
        raise HTTPException(418, "not you")

    await memory.create_job("one")
    app = FastAPI(dependencies=[Depends(refuse)] if place == "application" else [])
    if place == "included routes":
        app.include_router(create_app(memory, auth=auth.none()).router, dependencies=[Depends(refuse)])
    else:
        attach(app, memory, auth=auth.none())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as web:
        assert (await web.get("/api/jobs/one")).status_code == 418
        assert (await web.get("/api/jobs")).status_code == 418


@pytest.mark.parametrize("wrong", [None, "keys", auth.none, 5, True])
async def test_auth_is_required_and_validated(memory: AsyncJobManager, wrong: Any) -> None:
    with pytest.raises(TypeError):
        create_app(memory)  # type: ignore[call-arg]
    with pytest.raises(InvalidInputError, match="auth"):
        create_app(memory, auth=wrong)


async def test_pages_have_security_headers_and_relative_api(memory: AsyncJobManager) -> None:
    for mount, path, api in (("/jobs", "/jobs/", "../api"), ("/a/b/c", "/a/b/c/", "../../../api"), ("/", "/", "./api")):
        app = create_app(memory, auth=auth.none(), dashboard=mount)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as web:
            page = await web.get(path)
            assert page.status_code == 200
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert page.headers["x-content-type-options"] == "nosniff"
            assert api in page.text
            for hostile in ("..%2f..%2fsite.py", "%2e%2e/site.py", "a%00.js", "job/x", "assets/", "a" * 300):
                assert (await web.get(f"{path}{hostile}")).status_code == 404
            assert (await web.post(path)).status_code == 405


async def test_files_have_no_ranges(memory: AsyncJobManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request without a key could ask for thousands of ranges, each of which was looked at, and sent with headers."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "a.js").write_text("let a = 1;")
    monkeypatch.setattr("milepost.web.dashboard.STATIC", tmp_path)
    app = create_app(memory, auth=auth.api_keys())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as web:
        for path in ("/jobs/assets/a.js", "/api/milepost-watch.js"):
            whole = await web.get(path)
            part = await web.get(path, headers={"Range": "bytes=0-0,2-2"})
            assert (part.status_code, part.content) == (200, whole.content)
            assert "javascript" in part.headers["content-type"]


async def test_root_redirects_to_the_dashboard(memory: AsyncJobManager) -> None:
    for mount in ("/jobs", "/a/b/c"):
        app = create_app(memory, auth=auth.none(), dashboard=mount)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t/") as web:
            page = await web.get("/", follow_redirects=True)
            assert (page.status_code, page.url.path) == (200, f"{mount}/")
            assert page.history[0].headers["location"] == f"{mount[1:]}/", "relative: a stripped prefix stays"
