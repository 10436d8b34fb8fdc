"""Text that no job can have: every store answers alike, and none lets an error of its driver through."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from milepost import AsyncJobManager, Jobs, Run
from milepost.core.errors import InvalidInputError, ScheduleNotFoundError, UnknownJobTypeError
from milepost.query.filters import parse_filter
from milepost.stores.protocol import Store
from milepost.web import auth, create_app
from milepost.web.http.list_params import ListParams
from milepost.web.live.list_stream import open_list_stream
from milepost.web.security.principals import ANYONE
from tests.manager.test_schedules import calls_by_name

NUL, SURROGATE = "a\0b", "a\ud800b"
BAD = pytest.mark.parametrize("bad", [NUL, SURROGATE], ids=["nul", "surrogate"])


@pytest.fixture
def jobs(every_store: Store) -> Jobs:
    """Return an application without a worker, also in memory."""
    jobs = Jobs(every_store)

    @jobs.job("work")
    def work(run: Run) -> None: ...

    jobs.worker()
    jobs.submit(work)
    return jobs


def field_of(call: Callable[[], Any]) -> str:
    """Return the field that the error of a call names."""
    with pytest.raises(InvalidInputError) as error:
        call()
    return error.value.field


@BAD
def test_filter_values_are_refused_by_name(jobs: Jobs, bad: str) -> None:
    """Regression: PostgreSQL raised psycopg.DataError, and most stores UnicodeEncodeError."""
    labels = {"tenant": bad}
    assert field_of(lambda: jobs.list_jobs(labels=labels)) == "labels.tenant"
    assert field_of(lambda: jobs.list_jobs(labels={"a": "x", **labels})) == "labels.tenant"
    assert field_of(lambda: jobs.list_jobs(labels={bad: "x"})) == "labels"
    assert field_of(lambda: jobs.count_jobs(labels=labels)) == "labels.tenant"
    assert field_of(lambda: jobs.count_jobs(bad)) == "job_type"
    for key, field in (("label.tenant", "labels.tenant"), ("type", "job_type"), ("parent", "parent_id"), ("group", "group"),
                       ("partition", "partition"), ("after", "after"), ("schedule", "schedule")):  # fmt: skip
        assert field_of(lambda key=key: jobs.find(parse_filter(f'{key}:"{bad}"').query)) == field
    cursor = base64.urlsafe_b64encode(f"5:{bad}".encode("utf-8", "surrogatepass")).decode()
    assert field_of(lambda: jobs.find(cursor=cursor)) == "cursor"


@BAD
def test_names_that_nothing_has_are_not_found(jobs: Jobs, bad: str) -> None:
    for call in calls_by_name(jobs):
        with pytest.raises(ScheduleNotFoundError):
            call(bad)
    for of_type in (jobs.job_type, jobs.submit, lambda name: jobs.add_schedule("nightly", name, every="1h")):
        with pytest.raises(UnknownJobTypeError):
            of_type(bad)
    assert jobs.get_job(bad) is None


@BAD
async def test_async_manager_refuses_the_same(every_store: Store, bad: str) -> None:
    manager = AsyncJobManager(every_store.with_blocking(blocking=False))
    with pytest.raises(InvalidInputError, match=r"labels\.tenant"):
        await manager.list_jobs(labels={"tenant": bad})
    with pytest.raises(ScheduleNotFoundError):
        await manager.get_schedule(bad)
    await manager.close()


NOT_FOUND = ("/api/jobs/a%00b", "/api/jobs/a%00b/events", "/api/jobs/a%00b/output", "/api/schedules/a%00b")
LISTS = ("jobs?label=a:a%00b&q=", "jobs?q=", "events?q=", "stats?q=", "failures?q=")
REFUSED = tuple(
    f"/api/{path}{term}" for path in LISTS for term in ("type:%22a%00b%22", "group:%22a%00b%22", "label.a:%22a%00b%22")
)


async def test_server_answers_404_or_422(every_store: Store) -> None:
    """Regression: on PostgreSQL the status was 500."""
    manager = AsyncJobManager(every_store.with_blocking(blocking=False))
    app = create_app(manager, auth=auth.none())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        assert {path: (await client.get(path)).status_code for path in NOT_FOUND} == dict.fromkeys(NOT_FOUND, 404)
        assert {path: (await client.get(path)).status_code for path in REFUSED} == dict.fromkeys(REFUSED, 422)
        for method, path in (("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/fire")):
            assert (await client.request(method, f"/api/schedules/a%00b{path}")).status_code == 404
        wanted = ListParams(ids=("a\0b",))
        (await open_list_stream(app.state.milepost.hub, wanted, ANYONE, None)).release()
    await manager.close()
