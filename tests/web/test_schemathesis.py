"""schemathesis against the interface, with all its checks but one: what a schema cannot say (the grammar of a filter, a
cursor of ours, a type that a worker has published) is 422 by contract, so valid by the schema is not always accepted.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from milepost import AsyncJobManager
from milepost.web import auth, create_app

schemathesis = pytest.importorskip("schemathesis", reason="a tool of its own: pip install schemathesis")

manager = AsyncJobManager("memory://")
for number in range(3):
    asyncio.run(manager.create_job(f"job-{number}", "ingestion"))
app = create_app(manager, auth=auth.none())
schema = (
    schemathesis.openapi.from_asgi("/api/openapi.json", app)
    .exclude(path="/api/events")  # endless answers, which the tests of streams read
    .exclude(path="/api/jobs/{job_id}/events")
    .exclude(path="/api/webhooks")  # asks the name server
)
EXCEPT = [schemathesis.checks.CHECKS.get_by_names(["positive_data_acceptance"])[0]]


@schema.parametrize()
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_what_the_document_says(case: Any) -> None:
    answer = case.call()
    if answer.status_code != 413:  # the tool may try bodies that are larger than any may be
        case.validate_response(answer, excluded_checks=EXCEPT)
