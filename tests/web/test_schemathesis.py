"""schemathesis with all its checks against running servers, and two principals who must not see each other's jobs.

Rules that a schema cannot express (the filter grammar, cursors, published types) give 422 by contract, so
`positive_data_acceptance` allows refusals of valid data.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from scripts.fields import openapi_document

from tests.web.server import Server

schemathesis: Any = pytest.importorskip("schemathesis", reason="a tool of its own: pip install schemathesis")

ENDLESS = "/api/events"  # covered by the stream tests
STREAMS = ("/api/jobs/{job_id}/events", "/api/jobs/{job_id}/output")
CONFIG = schemathesis.config.SchemathesisConfig.from_dict(
    {"checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", "400", "4xx", "501"]}}}
)
document = openapi_document()
schema = (
    schemathesis.openapi.from_dict(document, config=CONFIG)
    .exclude(path=ENDLESS)
    .exclude(path_regex="^/api/documents(/|$)")
)
of_one_job = schema.include(path_regex=r"\{job_id\}")
SETTINGS = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
EVERY = ["jobs:read", "jobs:write", "jobs:delete", "admin"]
Headers = dict[str, str]


@pytest.fixture(scope="module", params=["memory", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Run a server in its own process."""
    environment: dict[str, Any] = {}
    url = "memory://"
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        environment["MILEPOST_NAMESPACE"] = "fuzzed"
    with Server(url, app="tests.web.fuzzed_app:app", **environment) as server:
        yield server


@cache
def key(server: Server, *scopes: str, owner: str | None = None) -> Headers:
    """Create a key, restricted to the label of its owner if given, and return its header."""
    body = {"scopes": scopes, "labels": {"owner": owner} if owner else None}
    headers: Headers = httpx.post(f"{server.url}/key", json=body).json()
    return headers


@cache
def job(server: Server, owner: str) -> str:
    """Create a running job of an owner with a secret."""
    made = httpx.post(
        f"{server.url}/api/jobs",
        json={"job_type": "letters", "run_by": "manual", "metadata": {"title": f"the secret of {owner}"}},
        headers=key(server, *EVERY[:3], owner=owner),
    )
    assert made.status_code == 201, made.text
    return str(made.json()["job_id"])


def quick(case: Any) -> Any:
    """Make a stream request return the available data as JSON."""
    if case.operation.path in STREAMS:
        case.headers = {**(case.headers or {}), "Accept": "application/json"}
    return case


@schema.parametrize()  # type: ignore[untyped-decorator]
@SETTINGS
def test_responses_conform_to_the_document(case: Any, server: Server) -> None:
    job(server, "bob")
    headers = key(server, *EVERY)
    answer = quick(case).call(base_url=server.url, headers=headers)
    if answer.status_code != 413:  # the tool may send bodies above the size limit
        case.validate_response(answer, headers=headers)


@of_one_job.parametrize()  # type: ignore[untyped-decorator]
@SETTINGS
def test_principals_cannot_access_foreign_jobs(case: Any, server: Server) -> None:
    """The response for another principal's job equals that for a missing id, byte for byte, and the job does not
    change.
    """
    theirs, bob = job(server, "bob"), key(server, *EVERY[:3], owner="bob")
    ana = key(server, *EVERY[:3], owner="ana")
    before = httpx.get(f"{server.url}/api/jobs/{theirs}", headers=bob)
    assert before.status_code == 200
    answers = []
    for job_id in (theirs, "0" * len(theirs)):
        case.path_parameters = {**(case.path_parameters or {}), "job_id": job_id}
        answer = quick(case).call(base_url=server.url, headers=ana)
        assert b"the secret of bob" not in answer.content
        headers = {
            name: value for name, value in answer.headers.items() if name.lower() not in ("date", "content-length")
        }
        answers.append((answer.status_code, answer.content.replace(job_id.encode(), b"ID"), headers))
    assert answers[0] == answers[1]
    assert httpx.get(f"{server.url}/api/jobs/{theirs}", headers=bob).content == before.content
