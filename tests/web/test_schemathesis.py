"""schemathesis against running servers with all its checks on, and two principals who must not see each other's jobs.

What a schema cannot say (the grammar of a filter, a cursor of ours, a type that a worker has published) is 422 by
contract, so `positive_data_acceptance` is told that valid by the schema is not always accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings

from milepost.web import openapi
from tests.web.server import Server

schemathesis: Any = pytest.importorskip("schemathesis", reason="a tool of its own: pip install schemathesis")

ENDLESS = "/api/events"  # the tests of streams read it
EVENTS = "/api/jobs/{job_id}/events"
CONFIG = schemathesis.config.SchemathesisConfig.from_dict(
    {"checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", "400", "4xx", "501"]}}}
)
document = openapi.document()
schema = (
    schemathesis.openapi.from_dict(document, config=CONFIG).exclude(path=ENDLESS).exclude(path_regex="^/api/documents/")
)
of_one_job = schema.include(path_regex=r"\{job_id\}")
SETTINGS = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
EVERY = ["jobs:read", "jobs:write", "jobs:delete", "admin"]
Headers = dict[str, str]


@pytest.fixture(scope="module", params=["memory", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server in a process of its own."""
    environment: dict[str, Any] = {}
    url = "memory://"
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        environment["MILEPOST_NAMESPACE"] = "fuzzed"
    with Server(url, app="tests.web.fuzzed_app:app", **environment) as server:
        yield server


@cache
def key(server: Server, *scopes: str, owner: str | None = None) -> Headers:
    """The header of a key; with an owner it is bound to that label."""
    body = {"scopes": scopes, "labels": {"owner": owner} if owner else None}
    headers: Headers = httpx.post(f"{server.url}/key", json=body).json()
    return headers


@cache
def job(server: Server, owner: str) -> str:
    """A running job of somebody, whose secret nobody else may see."""
    made = httpx.post(
        f"{server.url}/api/jobs",
        json={"job_type": "letters", "driver": "caller", "metadata": {"title": f"the secret of {owner}"}},
        headers=key(server, *EVERY[:3], owner=owner),
    )
    assert made.status_code == 201, made.text
    return str(made.json()["job_id"])


def quick(case: Any) -> Any:
    """Ask a stream for what it has, not for what comes."""
    if case.operation.path == EVENTS:
        case.headers = {**(case.headers or {}), "Accept": "application/json"}
    return case


@schema.parametrize()  # type: ignore[untyped-decorator]
@SETTINGS
def test_every_answer_is_what_the_document_says(case: Any, server: Server) -> None:
    job(server, "bob")
    headers = key(server, *EVERY)
    answer = quick(case).call(base_url=server.url, headers=headers)
    if answer.status_code != 413:  # the tool may try bodies that are larger than any may be
        case.validate_response(answer, headers=headers)


@of_one_job.parametrize()  # type: ignore[untyped-decorator]
@SETTINGS
def test_nobody_touches_the_job_of_another(case: Any, server: Server) -> None:
    """What another's job answers is byte for byte what an id answers that is not there, and the job stays as it was."""
    theirs, bob = job(server, "bob"), key(server, *EVERY[:3], owner="bob")
    ana = key(server, *EVERY[:3], owner="ana")
    before = httpx.get(f"{server.url}/api/jobs/{theirs}", headers=bob)
    assert before.status_code == 200
    answers = []
    for job_id in (theirs, "0" * len(theirs)):
        case.path_parameters = {**(case.path_parameters or {}), "job_id": job_id}
        answer = quick(case).call(base_url=server.url, headers=ana)
        assert b"the secret of bob" not in answer.content
        told = {name: value for name, value in answer.headers.items() if name.lower() not in ("date", "content-length")}
        answers.append((answer.status_code, answer.content.replace(job_id.encode(), b"ID"), told))
    assert answers[0] == answers[1]
    assert httpx.get(f"{server.url}/api/jobs/{theirs}", headers=bob).content == before.content
