"""Jobs that follow others, through the public API, on every store: what is refused, and what is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from milepost import AsyncJobs, Jobs, Run
from milepost.core.errors import InvalidInputError
from milepost.query.filters import parse_filter
from milepost.stores.protocol import Store
from tests.waiting import PATIENCE
from tests.web.conftest import client_of


@pytest.fixture
def jobs(every_store: Store) -> Iterator[Jobs]:
    jobs = Jobs(every_store)

    @jobs.job("load")
    def load(run: Run, fails: bool = False) -> None:
        if fails:
            raise ValueError("no such file")

    jobs.worker()  # so that a store in memory starts no worker by itself
    yield jobs
    jobs.close()


def refused(jobs: Jobs, text: str, *after: object, **options: str) -> None:
    """Submit a job that must be refused, and leave nothing behind."""
    before = jobs.count_jobs()
    with pytest.raises(InvalidInputError, match=text) as error:
        jobs.submit("load", {}, after=after, **options)  # type: ignore[call-overload]
    assert str(error.value).startswith("after: ")
    assert jobs.count_jobs() == before


def test_unknown_jobs_and_groups_are_refused(jobs: Jobs) -> None:
    jobs.create_job("a", group="import")
    refused(jobs, "no job 'b'; submit it first", "job:a", "job:b")
    refused(jobs, "no job 'b'", "children:b")
    refused(jobs, "no job is in the group 'Import'; submit its members first", "group:Import")
    refused(jobs, "'me'; a job cannot wait for itself", "job:me", job_id="me")
    refused(jobs, "no job '1'; submit it first", "job:a", "children:1")
    for text, meant in (
        ("a", "job:a"),
        ("jobs:a", "job:a"),
        ("Group: import", "group:import"),
        ("night:1", "job:night:1"),
    ):
        refused(jobs, f"{text!r} must begin with job: or children: or group:, for example {meant}$", text)
    refused(jobs, "5 must be a Job, a batch, or text such as 'job:ID'", 5)
    with pytest.raises(InvalidInputError, match="no job 'b'"):
        jobs.submit_many("load", [{}, {}], after=["job:b"])
    with pytest.raises(InvalidInputError, match="no job 'b'"):
        jobs.submit("load", {}, unique_key="k", on_duplicate="supersede", after=["job:b"])


def test_job_that_would_wait_for_itself_is_refused(jobs: Jobs) -> None:
    jobs.create_job("top", group="all")
    refused(jobs, "would never close", "group:all", group="all")
    assert jobs.submit("load", {}, parent_id="top", after=["children:top"]).status == "pending"  # it is no child
    jobs.submit("load", {}, job_id="first", group="one", after=["job:top"])
    jobs.submit("load", {}, job_id="second", group="two", after=["group:one"])
    jobs.submit("load", {}, job_id="third", after=["group:two"])
    text = (
        "'job:third' would never close: job second waits for group:one, and the job itself is a member of it; omit it"
    )
    refused(jobs, text, "job:third", group="one")
    assert jobs.submit("load", {}, group="one", after=["job:top"]).status == "pending"


@pytest.mark.parametrize("length", [2, 3, 40])
def test_circle_of_many_jobs_is_refused(jobs: Jobs, length: int) -> None:
    jobs.create_job("top", group="one")
    after = "group:one"
    for number in range(length):
        after = f"job:{jobs.submit('load', {}, job_id=f'waits-{number}', after=['job:top', after]).job_id}"
    refused(jobs, f"'{after}' would never close: job waits-0 waits for group:one", after, group="one")
    assert jobs.submit("load", {}, after=[after], group="other").status == "pending"


def test_long_chain_in_a_batch_is_checked_by_few_reads(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def counted(name: str) -> None:
        read = getattr(jobs.store, name)
        monkeypatch.setattr(jobs.store, name, lambda *args: (reads.append(name), read(*args))[1])

    jobs.create_job("one", group="batch")
    last = jobs.submit("load", {}, after=["group:batch"], job_id="then")
    jobs.submit("load", {}, after=[last])
    last = jobs.submit("load", {}, after=["job:one"])
    for name in ("get", "select"):
        counted(name)
    for _ in range(30):
        before = len(reads)
        last = jobs.submit("load", {}, after=[last], group="batch")
        assert len(reads) - before <= 8


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"after": ["job:b"]}, ("after: there is no job 'b'; submit it first",)),
        ({"after": ["job:a", "children:b"]}, ("after: there is no job 'b'; submit it first",)),
        ({"after": ["group:Import"]}, ("after: no job is in the group 'Import'; submit its members first",)),
        ({"after": ["jobs:a"]}, ("after: 'jobs:a' must begin with job: or children: or group:, for example job:a",)),
        ({"after": ["group:import"], "group": "import"}, ("after: 'group:import' would never close", "omit it")),
        ({"after": ["job:then"], "group": "import"}, ("job then waits for group:import", "omit it")),
        ({"after": [f"job:{n}" for n in range(101)]}, ("after", "100")),
        ({"after": "job:a"}, ("after", "list")),
        ({"after": ["job:a"], "on_failure": "ignore"}, ("on_failure", "cancel", "run")),
        ({"group": "closed"}, ("group: batch 'closed' is closed; only its running members can add jobs",)),
    ],
)
def test_bad_groups_over_http_create_nothing(jobs: Jobs, body: dict[str, object], texts: tuple[str, ...]) -> None:
    jobs.create_job("a", group="import")
    jobs.submit("load", {}, job_id="then", after=["group:import"])
    with jobs.batch("closed"):
        pass
    before = jobs.count_jobs()

    async def submit() -> httpx.Response:
        apart = AsyncJobs(jobs.store.with_blocking(blocking=False), handlers=jobs.handlers)
        async with client_of(apart) as web:
            refused = await web.post("/api/jobs", json={"job_type": "load", **body})
        await apart.close()
        return refused

    refused = asyncio.run(submit())
    assert refused.status_code == 422, refused.text
    for text in texts:
        assert text in refused.text
    assert jobs.count_jobs() == before


def test_reason_of_waiting_is_shown(jobs: Jobs) -> None:
    first = jobs.submit("load", {}, group="g")
    with jobs.track("whole", job_id="p") as parent:
        parent.submit_child("a", jobs.handlers["load"])
    texts = [(first, f"job {first.job_id}"), ("group:g", "group g"), ("children:p", "the children of p")]
    for entry, text in texts:
        job = jobs.submit("load", {}, after=[entry])
        assert job.activity == f"Waiting for {text}"
        (listed, *_) = jobs.list_jobs(limit=1)
        assert listed.to_dict()["activity"] == job.activity
        assert listed.to_dict()["waiting_for"] == {"code": "after", "params": {"group": job.after[0]}}
    assert jobs.find(parse_filter("after:group:g").query).total == 1


async def test_failure_and_success_release_what_follows(jobs: Jobs) -> None:
    apart = AsyncJobs(jobs.store.with_blocking(blocking=False), handlers=jobs.handlers)
    first = await apart.submit("load", {"fails": True}, group="g")
    second = await apart.submit("load", {}, group="g")
    skipped = await apart.submit("load", {}, after=[second, "group:g"])
    anyway = await apart.submit("load", {}, after=["group:g"], on_failure="run")
    last = await apart.submit("load", {}, after=[anyway, second])
    async with apart.run_workers():
        job = await apart.wait(skipped.job_id, PATIENCE)
        assert (job.status, job.error) == ("cancelled", f"load failed: no such file (job {first.job_id})")
        assert job.activity == f"Cancelled: {job.error}"
        assert (await apart.wait(last.job_id, PATIENCE)).status == "completed"
    await apart.close()
