"""Keys, sessions and share links against a live server: what each permits, and what ends it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from milepost import Jobs
from milepost.stores.sync_bridge import run_sync
from milepost.web.security.api_keys import ShareLinkStore
from milepost.worker.registry import JobType, publish
from tests.security.live_server import LiveServer

pytestmark = pytest.mark.timing


@pytest.fixture(scope="module", autouse=True)
def published(live: LiveServer) -> None:
    """Return the types that a worker has published."""
    operators = {"type": "object", "properties": {"database": {"type": "string", "readOnly": True}}}
    run_sync(
        publish(live.manager.store, [JobType("summary"), JobType("ingestion"), JobType("library", schema=operators)])
    )


def made(live: LiveServer, **options: Any) -> str:
    """Create a job that is run by its caller, and return its id."""
    return live.manager.create_job(**options).job_id


def test_key_stored_by_a_newer_release_is_valid(live: LiveServer) -> None:
    """A field that this release does not know made every request with the key an internal error, and the list of keys too."""
    key = live.key("jobs:read", "admin")
    store = live.manager.store
    item = run_sync(store.kv_get(f"key/{key.split('_')[1]}"))
    assert item is not None
    run_sync(store.kv_put(item.key, json.dumps({**json.loads(item.value), "from_the_future": 1})))
    assert live.call("GET", "/api/jobs", key).status_code == 200
    assert live.call("GET", "/api/keys", key).status_code == 200


def test_key_starts_only_its_types(live: LiveServer) -> None:
    """A tenant's key could submit any type with any parameters."""
    key = live.key("jobs:read", "jobs:write", types=["summary", "note"])
    submit = {"params": {}}
    assert live.call("POST", "/api/jobs", key, json={"job_type": "summary", **submit}).status_code == 201
    for body in (
        {"job_type": "ingestion", **submit},
        {"job_type": "other", "run_by": "manual"},
        {"job_type": "Summary"},
    ):
        refused = live.call("POST", "/api/jobs", key, json=body)
        assert refused.status_code == 403, body
    assert live.call("POST", "/api/jobs", key, json={"job_type": "note", "run_by": "manual"}).status_code == 201
    job_id = Jobs(live.manager.store, options=live.manager.settings).submit("ingestion").job_id
    live.call("POST", f"/api/jobs/{job_id}/cancel", key)
    assert live.call("POST", f"/api/jobs/{job_id}/retry", key).status_code == 403
    [outcome] = live.call("POST", "/api/jobs/bulk", key, json={"action": "retry", "ids": [job_id]}).json()["outcomes"]
    assert outcome["outcome"] == "refused"
    assert live.call("GET", f"/api/jobs/{job_id}", key).status_code == 200, "lists and records are not narrowed"
    assert live.call("GET", "/api/session", key).json()["types"] == ["note", "summary"]


def test_key_starts_only_in_its_queues(live: LiveServer) -> None:
    key = live.key("jobs:read", "jobs:write", queues=["summary", "gpu"])
    call = live.call
    assert call("POST", "/api/jobs", key, json={"job_type": "summary"}).status_code == 201
    made = call("POST", "/api/jobs", key, json={"job_type": "ingestion", "queue": "gpu"})
    assert (made.status_code, made.json()["queue"]) == (201, "gpu")
    for body in ({"job_type": "ingestion"}, {"job_type": "summary", "queue": "cpu"}):
        refused = call("POST", "/api/jobs", key, json=body)
        assert (refused.status_code, "in queue" in refused.json()["detail"]) == (403, True)
    assert call("POST", "/api/jobs", key, json={"job_type": "note", "run_by": "manual"}).status_code == 201
    job_id = Jobs(live.manager.store, options=live.manager.settings).submit("ingestion").job_id
    call("POST", f"/api/jobs/{job_id}/cancel", key)
    assert call("POST", f"/api/jobs/{job_id}/retry", key).status_code == 403
    assert call("GET", "/api/session", key).json()["queues"] == ["gpu", "summary"]


def test_key_with_queues_is_held_to_default_queue_of_type(live: LiveServer) -> None:
    run_sync(publish(live.manager.store, [JobType("embed", queue="gpu"), JobType("train", queue="big")]))
    key = live.key("jobs:read", "jobs:write", queues=["gpu", "train"])
    made = live.call("POST", "/api/jobs", key, json={"job_type": "embed"})
    assert (made.status_code, made.json()["queue"]) == (201, "gpu")
    refused = live.call("POST", "/api/jobs", key, json={"job_type": "train"})
    assert (refused.status_code, "in queue 'big'" in refused.json()["detail"]) == (403, True)
    assert live.call("POST", "/api/jobs", key, json={"job_type": "train", "queue": "train"}).status_code == 201


def test_key_starts_jobs_up_to_its_priority(live: LiveServer) -> None:
    key, low = (live.key("jobs:read", "jobs:write", max_priority=most) for most in (5, -3))
    call = live.call
    for owner, given, status, priority in (
        (key, 5, 201, 5),
        (key, None, 201, 0),
        (key, 6, 422, 6),
        (low, None, 201, -3),
        (low, 0, 422, 0),
    ):
        body = {"job_type": "summary"} if given is None else {"job_type": "summary", "priority": given}
        answer = call("POST", "/api/jobs", owner, json=body)
        assert answer.status_code == status
        assert answer.json()["priority"] == priority if status == 201 else "must be at most" in answer.json()["detail"]
    assert call("POST", "/api/jobs", low, json={"job_type": "note", "run_by": "manual"}).status_code == 201
    hourly = {"job_type": "ingestion", "every": 3600, "options": {"priority": 6}}
    assert call("PUT", "/api/schedules/hourly", key, json=hourly).status_code == 422
    assert call("PUT", "/api/schedules/hourly", live.key("jobs:write"), json=hourly).status_code == 200
    for verb in ("fire", "resume"):
        assert call("POST", f"/api/schedules/hourly/{verb}", key).status_code == 403
    assert call("GET", "/api/session", key).json()["max_priority"] == 5


@pytest.mark.parametrize("limits", [{"types": ["a"]}, {"queues": ["a"]}, {"max_priority": 0}, {"labels": {"t": "a"}}])
def test_restricted_key_has_no_admin_rights(live: LiveServer, limits: dict[str, Any]) -> None:
    """Such a key could create one without the restriction."""
    key = live.key("admin", **limits)
    body = {"name": "free", "scopes": ["admin"]}
    assert live.call("POST", "/api/keys", key, json=body).status_code == 403
    assert live.call("GET", "/api/doctor", key).status_code == 403
    assert live.call("GET", "/api/jobs", key).status_code == 200, "it has the rights of the other scopes"


def test_cancel_scope_cancels_and_nothing_else(live: LiveServer) -> None:
    """A key that may cancel could also submit, which is too much for a stop button."""
    key, job_id = live.key("jobs:cancel"), made(live)
    refused = [
        ("GET", "/api/jobs"), ("GET", f"/api/jobs/{job_id}"), ("POST", "/api/jobs"), ("PATCH", f"/api/jobs/{job_id}"),
        ("DELETE", f"/api/jobs/{job_id}"), ("POST", f"/api/jobs/{job_id}/retry"), ("POST", f"/api/jobs/{job_id}/share"),
    ]  # fmt: skip
    bodies = {"/api/jobs": {"job_type": "x", "run_by": "manual"}}
    for method, path in refused:
        body = bodies.get(path) if method == "POST" else {"progress": 0.5} if method == "PATCH" else None
        assert live.call(method, path, key, json=body).status_code == 403, (method, path)
    for action, status in (("retry", 403), ("delete", 403)):
        body = {"action": action, "ids": [job_id]}
        assert live.call("POST", "/api/jobs/bulk", key, json=body).status_code == status
    assert live.call("POST", f"/api/jobs/{job_id}/cancel", key).status_code == 200


def test_filter_reveals_nothing_to_keys_without_read(live: LiveServer) -> None:
    """A key that may only cancel or delete could learn the content of jobs by counting the matches of filters."""
    made(live, metadata={"title": "oracle-4711"})
    for scope, action in (("jobs:write", "cancel"), ("jobs:delete", "delete"), ("jobs:cancel", "cancel")):
        key = live.key(scope)
        for q in ("oracle-4711", "", "status:pending"):
            for dry in (True, False):
                body = {"action": action, "q": q, "dry_run": dry}
                assert live.call("POST", "/api/jobs/bulk", key, json=body).status_code == 403, (scope, q, dry)
    key = live.key("jobs:read", "jobs:delete")
    found = live.call("POST", "/api/jobs/bulk", key, json={"action": "delete", "q": "oracle-4711", "dry_run": True})
    assert found.json()["matching"] == 1


def test_result_of_a_worker_type_cannot_be_forged(live: LiveServer) -> None:
    """A tenant created a record of type ingestion and completed it with any result, which webhooks and statistics
    passed on.
    """
    body = {"job_type": "ingestion", "run_by": "manual"}
    writer = live.key("jobs:read", "jobs:write")
    for key in (writer, live.key("jobs:write", labels={"t": "a"}), live.key("admin", labels={"t": "a"})):
        assert live.call("POST", "/api/jobs", key, json=body).status_code == 403
        assert live.call("POST", "/api/jobs", key, json={**body, "job_type": "mine"}).status_code == 201
    applications = made(live, job_type="ingestion")
    completed = {"status": "completed", "result": "forged"}
    assert live.call("PATCH", f"/api/jobs/{applications}", writer, json=completed).status_code == 403
    assert live.call("PATCH", f"/api/jobs/{applications}", live.key("admin"), json=completed).status_code == 200
    assert live.call("PATCH", f"/api/jobs/{made(live)}", writer, json=completed).status_code == 200
    assert live.call("POST", "/api/jobs", live.key("admin"), json=body).status_code == 201
    assert live.manager.create_job(job_type="ingestion").job_type == "ingestion", "in Python it is as it was"


def test_key_without_read_gets_no_record(live: LiveServer) -> None:
    """A write-only key got parameters and results of other jobs by a retry, a duplicate, a PATCH or a replay."""
    key, admin = live.key("jobs:write"), live.key("admin")
    body = {
        "job_type": "summary",
        "params": {"text": "hunter2"},
        "metadata": {"title": "hunter2"},
        "unique_key": "nightly",
    }
    replayed = {"Idempotency-Key": "monday"}
    theirs = live.call("POST", "/api/jobs", admin, json=body, headers=replayed).json()["job_id"]
    mine = live.manager.create_job(metadata={"title": "hunter2"}).job_id
    driven = live.call(
        "POST", "/api/jobs", admin, json={"job_type": "note", "run_by": "manual", "metadata": {"title": "hunter2"}}
    )
    unique = {"job_type": "summary", "unique_key": "nightly"}
    answers = [
        live.call("POST", "/api/jobs", key, json=unique),
        live.call("POST", "/api/jobs", key, json={**unique, "job_id": theirs}),
        live.call("POST", "/api/jobs", key, json=body, headers=replayed),
        live.call("PATCH", f"/api/jobs/{mine}", key, json={}),
        live.call("PATCH", f"/api/jobs/{driven.json()['job_id']}", key, json={}),
    ]
    live.call("POST", f"/api/jobs/{theirs}/cancel", admin)
    answers.append(live.call("POST", "/api/jobs", key, json=body, headers={**replayed, "Prefer": "wait=0"}))
    answers.append(live.call("POST", f"/api/jobs/{theirs}/retry", key))
    for number, answer in enumerate(answers):
        assert (answer.is_success, "hunter2" in answer.text) == (True, False), (number, answer.text)
        assert answer.json()["job_id"] in (theirs, mine, driven.json()["job_id"]), number
        assert {"job_type", "status", "version"} <= answer.json().keys()
    live.call("POST", f"/api/jobs/{theirs}/cancel", admin)
    own = live.call("POST", "/api/jobs", key, json=body, headers={"Idempotency-Key": "tuesday"})
    assert own.json()["params"] == {"text": "hunter2"}, "its own job is no secret"
    assert live.call("POST", "/api/jobs", key, json=body, headers={"Idempotency-Key": "tuesday"}).text == own.text


def test_idempotency_key_belongs_to_its_caller(live: LiveServer) -> None:
    """The Idempotency-Key of another caller returned the record of that caller's job."""
    body = {"job_type": "note", "run_by": "manual", "metadata": {"title": "mine"}}
    made = {
        live.call(
            "POST", "/api/jobs", live.key("jobs:read", "jobs:write"), json=body, headers={"Idempotency-Key": "k"}
        ).json()["job_id"]
        for _ in range(2)
    }
    assert len(made) == 2


def test_bound_key_cannot_retry_operator_jobs(live: LiveServer) -> None:
    """A tenant's key could not submit document jobs, but ran them by a retry."""
    bound = live.key("jobs:read", "jobs:write", labels={"tenant": "a"})
    admin = live.key("admin")
    body = {"job_type": "library", "labels": {"tenant": "a"}}
    job_id = live.call("POST", "/api/jobs", admin, json=body).json()["job_id"]
    gone = live.manager.enqueue("gone", {}, labels={"tenant": "a"}).job_id
    for one in (job_id, gone):
        assert live.call("POST", f"/api/jobs/{one}/cancel", bound).status_code == 200
        for retry in ({}, {"only_failed": True}):
            assert live.call("POST", f"/api/jobs/{one}/retry", bound, json=retry).status_code in (403, 422), (
                one,
                retry,
            )
    bulk = live.call("POST", "/api/jobs/bulk", bound, json={"action": "retry", "ids": [job_id, gone]})
    assert [one["outcome"] for one in bulk.json()["outcomes"]] == ["refused", "refused"]
    assert live.call("POST", f"/api/jobs/{job_id}/retry", admin).status_code == 200


def test_key_and_session_are_not_interchangeable(live: LiveServer) -> None:
    """For two seconds after its use, a session token worked as a key, bypassing the origin check, and a key as a
    cookie.
    """
    key = live.key("jobs:read", "jobs:write")
    with httpx.Client(base_url=live.url) as browser:
        browser.post("/api/session", json={"key": key})
        session = browser.cookies["milepost_session"]
        assert browser.get("/api/jobs").status_code == 200
    assert live.call("GET", "/api/jobs", key).status_code == 200
    assert live.call("GET", "/api/jobs", session).status_code == 401
    assert live.call("GET", "/api/jobs", headers={"X-API-Key": session}).status_code == 401
    assert live.call("GET", "/api/jobs", headers={"Cookie": f"milepost_session={key}"}).status_code == 401


def test_failed_sign_in_is_logged_without_the_secret(live: LiveServer) -> None:
    """Attempts to guess keys were not logged."""
    known = live.key("jobs:read")
    wrong = known[:-4] + "AAAA"
    assert live.call("GET", "/api/jobs", wrong).status_code == 401
    assert live.call("POST", "/api/session", json={"key": f"{wrong}x"}).status_code == 401
    assert live.call("GET", "/api/jobs", "hunter2 hunter2").status_code == 401
    stderr_text = live.stderr_text
    assert stderr_text.count(f"sign-in refused: client 127.0.0.1, key {'_'.join(known.split('_')[:2])}") == 2
    assert "sign-in refused: client 127.0.0.1, key malformed" in stderr_text
    assert known.split("_", 2)[2][:20] not in stderr_text
    assert "hunter2" not in stderr_text


def test_share_link_needs_the_right_to_read(live: LiveServer) -> None:
    """A write-only key created a share link and read the result through it."""
    job_id = made(live)
    path = f"/api/jobs/{job_id}/share"
    for scope in ("jobs:write", "jobs:delete", "jobs:cancel"):
        assert live.call("POST", path, live.key(scope)).status_code == 403
    reader = live.key("jobs:read")
    assert live.call("POST", path, reader, json={"may_cancel": True}).status_code == 403
    assert live.call("POST", path, live.key("jobs:read", labels={"t": "a"})).status_code == 404
    token = live.call("POST", path, reader).json()["token"]
    assert live.call("GET", f"/api/jobs/{job_id}?share={token}").status_code == 200
    assert live.call("POST", f"{path}?share={token}").status_code == 403, "a link makes no links"
    assert live.call("GET", f"{path}?share={token}").status_code == 403


def test_share_link_opens_one_job(live: LiveServer) -> None:
    """A share link gave access to the overview: types, docs, schemas, and scans of the whole store."""
    job_id, other = made(live), made(live)
    token = live.call("POST", f"/api/jobs/{job_id}/share", live.key("jobs:read")).json()["token"]
    for path in ("job-types", "stats", "failures", "workers", "keys", "doctor", "webhooks", "documents/search?q=x"):
        assert live.call("GET", f"/api/{path}{'&' if '?' in path else '?'}share={token}").status_code == 403, path
    assert live.call("GET", f"/metrics?share={token}").status_code == 403
    for method, path in (("POST", "jobs"), ("PATCH", f"jobs/{job_id}"), ("DELETE", f"jobs/{job_id}"),
                         ("POST", f"jobs/{job_id}/retry"), ("POST", f"jobs/{job_id}/cancel"), ("POST", "jobs/bulk")):  # fmt: skip
        bodies: dict[str, Any] = {"jobs": {"job_type": "x"}, "jobs/bulk": {"action": "cancel", "ids": [job_id]}}
        body = bodies.get(path, {"progress": 0.5} if method == "PATCH" else None)
        assert live.call(method, f"/api/{path}?share={token}", json=body).status_code == 403, path
    assert live.call("GET", f"/api/jobs/{other}?share={token}").status_code == 404
    for part in ("", "/attempts", "/logs", "/events"):
        headers = {"Accept": "application/json"}
        assert live.call("GET", f"/api/jobs/{job_id}{part}?share={token}", headers=headers).status_code == 200, part
    for q in ("", "id:", "status:pending", "type:generic", other):
        listed = live.call("GET", "/api/jobs", params={"share": token, "q": q})
        assert {job["job_id"] for job in listed.json().get("jobs", [])} <= {job_id}, q
    assert live.call("GET", f"/api/session?share={token}").json()["id"] == "share"


def test_share_link_can_be_listed_revoked_and_replaced(live: LiveServer) -> None:
    """A link sent to the wrong address worked for 30 days, and could be neither listed nor revoked."""
    job_id = made(live)
    path = f"/api/jobs/{job_id}/share"
    reader, writer = live.key("jobs:read"), live.key("jobs:read", "jobs:write")
    first, second = (live.call("POST", path, key).json() for key in (reader, writer))
    listed = live.call("GET", path, reader).json()["links"]
    assert {link["id"] for link in listed} == {first["id"], second["id"]}
    assert first["token"].split("_", 2)[2] not in str(listed)
    assert live.call("DELETE", f"{path}/{second['id']}", reader).status_code == 403, "created by another caller"
    assert live.call("DELETE", f"{path}/{first['id']}", reader).status_code == 204
    assert live.call("GET", f"/api/jobs/{job_id}?share={first['token']}").status_code == 401
    replaced = live.call("POST", f"{path}/{second['id']}/rotate", writer).json()
    assert live.call("GET", f"/api/jobs/{job_id}?share={second['token']}").status_code == 401
    assert live.call("GET", f"/api/jobs/{job_id}?share={replaced['token']}").status_code == 200
    assert live.call("DELETE", f"{path}/{first['id']}", writer).status_code == 404
    assert live.call("POST", f"{path}/{first['id']}/rotate", writer).status_code == 404


def test_share_link_ends_with_its_job_and_its_key(live: LiveServer) -> None:
    """A link read the next job with the same id, and outlived the key that created it."""
    job_id = made(live, job_id="again")
    admin, maker = live.key("admin"), live.key("jobs:read", "jobs:write")
    link = f"/api/jobs/again?share={live.call('POST', '/api/jobs/again/share', maker).json()['token']}"
    assert live.call("GET", link).status_code == 200
    live.manager.delete_job(job_id)
    assert live.call("GET", link).status_code == 401
    made(live, job_id="again", labels={"tenant": "b"})
    assert live.call("GET", link).status_code == 401
    link = f"/api/jobs/again?share={live.call('POST', '/api/jobs/again/share', maker).json()['token']}"
    assert live.call("GET", link).status_code == 200
    assert live.call("DELETE", f"/api/keys/{maker.split('_')[1]}", admin).status_code == 204
    assert live.call("GET", link).status_code == 401


def test_share_link_does_not_show_a_recreated_job(live: LiveServer) -> None:
    """A list stream or long poll opened by a link received the next job with the same id."""
    job_id = made(live, job_id="used-again")
    maker = live.key("jobs:read")
    token = live.call("POST", f"/api/jobs/{job_id}/share", maker).json()["token"]
    holder = run_sync(ShareLinkStore(live.manager.store, live.keys).find(token))
    assert holder is not None
    first = live.manager.get_job(job_id)
    poll = {"If-None-Match": f'W/"v{first.version}"', "Prefer": "wait=20"}
    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(live.call, "GET", f"/api/jobs/{job_id}?share={token}", headers=poll)
        live.manager.delete_job(job_id)
        made(live, job_id=job_id, metadata={"title": "hunter2"})
        assert polled.result().status_code in (401, 404)
    assert [holder.sees(job) for job in (first, live.manager.get_job(job_id))] == [True, False]


def test_forged_share_token_opens_nothing(live: LiveServer) -> None:
    """Every forged token is refused, whatever its form."""
    job_id = made(live)
    token = live.call("POST", f"/api/jobs/{job_id}/share", live.key("jobs:read")).json()["token"]
    kind, link_id, secret = token.split("_", 2)
    forged = [
        token[:-1], token + "A", token * 2, token.upper(), f"{kind}_{link_id}_", f"{kind}__{secret}", f"mp_{link_id}_{secret}",
        f"{kind}_{'0' * 28}_{secret}", f"{kind}_../key/x_{secret}", f"{kind}_{link_id[:16]}_{secret}", "msl_", "", "x" * 5000,
        f"{kind}_{link_id}%00_{secret}", "WyJhIiwxLGZhbHNlXQ.AAAA",
    ]  # fmt: skip
    for text in forged:
        assert live.call("GET", f"/api/jobs/{job_id}", params={"share": text}).status_code == 401, text
