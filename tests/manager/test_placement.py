"""Group, parent, partition, queue and what a job follows: set at submit, shown and filtered, on every store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from milepost import AsyncJobs, Jobs, Run
from milepost.core.errors import InvalidInputError
from milepost.core.limits import ready_name, slot_name
from milepost.query.filters import parse_filter
from milepost.stores.factory import open_store
from tests.waiting import PATIENCE


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.service("redis-server"))])
def jobs(request: pytest.FixtureRequest) -> Iterator[Jobs]:
    if request.param == "redis":
        namespace = request.getfixturevalue("redis_namespace")
        store = open_store(request.getfixturevalue("redis_url"), namespace=namespace)
    else:
        store = open_store("memory://" if request.param == "memory" else request.getfixturevalue("sqlite_url"))
    jobs = Jobs(store)

    @jobs.job("render")
    def render(run: Run, number: int = 0) -> int:
        return number

    @jobs.job("train")
    def train(run: Run) -> None: ...

    jobs.worker()  # so that a store in memory starts no worker by itself
    yield jobs
    jobs.close()


def found(jobs: Jobs, text: str) -> tuple[set[str], int | None, tuple[str, ...]]:
    """Return the ids that a filter finds, the total, and the terms that no index answers."""
    parsed = parse_filter(text)
    page = jobs.find(parsed.query)
    return {job.job_id for job in page.jobs}, page.total, parsed.reads


def test_fields_are_stored_and_filtered(jobs: Jobs) -> None:
    fields: dict[str, Any] = {
        "group": "import 42", "parent_id": "p", "partition": "acme", "after": ["job:x", "group:g"], "limit_key": "cpu",
        "labels": {"owner": "ana"},
    }  # fmt: skip
    jobs.create_job("x")
    jobs.create_job("y", group="g")
    job = jobs.submit("render", job_id="a", **fields)
    jobs.create_job("b", "generic", group="import 42", parent_id="a")
    jobs.submit("render", job_id="c", labels={"owner": "ana"})
    assert {name: getattr(job, name) for name in fields} == {**fields, "after": ("job:x", "group:g")}
    for text, ids in {
        'group:"import 42"': {"a", "b"}, "parent:p": {"a"}, "parent:a": {"b"}, "partition:acme": {"a"},
        "after:group:g": {"a"}, "group:none": set(),
    }.items():  # fmt: skip
        assert found(jobs, text) == (ids, len(ids), ())
    assert found(jobs, 'group:"import 42" label.owner:ana')[0] == {"a"}
    assert found(jobs, "not.partition:acme") == ({"b", "c", "x", "y"}, None, ("not.partition",))
    assert found(jobs, "limit_key:cpu,generic")[0] == {"a"}
    assert found(jobs, "run_by:manual")[0] == {"b", "x", "y"}
    assert job.to_dict()["after"] == ["job:x", "group:g"]


def test_queue_and_limit_key_default_to_the_type(jobs: Jobs) -> None:
    job = jobs.submit("render")
    assert (job.queue, job.limit_key, job.group, job.after) == ("render", "render", None, ())
    assert jobs.submit("render", queue="render").record.get("labels") is None
    assert jobs.create_job("m").queue is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("group", "a\x1fowner=eve"), ("group", ""), ("partition", 5), ("after", "job:a"), ("after", ["a"]),
        ("after", ["job:a"] * 101), ("queue", "q\n"), ("limit_key", "x" * 129),
    ],
)  # fmt: skip
def test_invalid_value_is_rejected(jobs: Jobs, field: str, value: Any) -> None:
    options: dict[str, Any] = {field: value}
    with pytest.raises(InvalidInputError, match=field):
        jobs.submit("render", job_id="a", **options)
    assert jobs.get_job("a") is None


def test_label_cannot_pass_for_a_field(jobs: Jobs) -> None:
    with pytest.raises(InvalidInputError, match="labels"):
        jobs.submit("render", labels={":group": "g"})
    job = jobs.submit("render", labels={"note": ":group=g"}, group="h")
    assert (job.group, job.labels) == ("h", {"note": ":group=g"})


def test_worker_of_a_queue_runs_its_jobs_of_all_types(jobs: Jobs) -> None:
    jobs.submit("render", {"number": 1}, job_id="a", queue="gpu")
    jobs.submit("train", job_id="b", queue="gpu")
    jobs.submit("render", {"number": 3}, job_id="c")
    assert found(jobs, "queue:gpu")[0] == {"a", "b"}
    assert found(jobs, "queue:render")[0] == {"c"}
    with jobs.run_workers(queues=["gpu"]):
        assert [jobs.wait(job_id, PATIENCE).status.value for job_id in "ab"] == ["completed", "completed"]
    assert jobs.find(parse_filter("status:pending").query).jobs[0].job_id == "c"
    with jobs.run_workers(queues=["render"]):
        assert jobs.wait("c", PATIENCE).result == 3


def test_quoted_comma_is_part_of_a_value(jobs: Jobs) -> None:
    jobs.submit("render", job_id="a", limit_key="eu,west", partition='say "a,b"')
    jobs.submit("render", job_id="b", limit_key="eu")
    jobs.submit("render", job_id="c", limit_key="west")
    assert found(jobs, 'limit_key:"eu,west"')[0] == {"a"}
    assert found(jobs, 'partition:"say \\"a,b\\""')[0] == {"a"}
    assert found(jobs, "limit_key:eu,west")[0] == {"b", "c"}
    assert found(jobs, 'limit_key:west,"eu,west"')[0] == {"a", "c"}
    assert found(jobs, 'not.limit_key:"eu,west"')[0] == {"b", "c"}


def add_gpu_type(jobs: Jobs | AsyncJobs) -> None:
    """Register the type ``embed``, whose jobs are in the queue ``gpu`` by default."""

    @jobs.job("embed", queue="gpu")
    def embed(run: Run, number: int = 0) -> int:
        return number


def test_default_queue_of_a_type_is_overridden_by_its_submit(jobs: Jobs) -> None:
    add_gpu_type(jobs)
    assert jobs.submit("embed", {"number": 1}, job_id="a").queue == "gpu"
    assert jobs.submit(jobs.handlers["embed"].options(queue="cpu", job_id="b"), number=2).queue == "cpu"
    assert jobs.submit("embed", {"number": 3}, job_id="c", queue="embed").queue == "embed"
    (many,) = jobs.submit_many("embed", [{"number": 4}])
    assert found(jobs, "queue:gpu")[0] == {"a", many}
    with jobs.run_workers(queues=["gpu"]):
        assert (jobs.wait("a", PATIENCE).result, jobs.wait(many, PATIENCE).result) == (1, 4)
    assert found(jobs, "status:pending")[0] == {"b", "c"}
    with jobs.run_workers(queues=["embed", "cpu"]):
        assert (jobs.wait("b", PATIENCE).result, jobs.wait("c", PATIENCE).result) == (2, 3)


def test_worker_without_queues_serves_default_queues(jobs: Jobs) -> None:
    add_gpu_type(jobs)
    jobs.submit("embed", {"number": 1}, job_id="a")
    jobs.submit("embed", {"number": 2}, job_id="b", queue="embed")
    jobs.submit("embed", {"number": 3}, job_id="c", queue="cpu")
    with jobs.run_workers():
        assert (jobs.wait("a", PATIENCE).result, jobs.wait("b", PATIENCE).result) == (1, 2)
        assert jobs.job_type("embed").queue == "gpu"
        assert jobs.job_type("render").queue is None
    assert found(jobs, "status:pending")[0] == {"c"}


async def test_async_jobs_use_the_default_queue(jobs: Jobs) -> None:
    apart = AsyncJobs(jobs.store.with_blocking(blocking=False))
    add_gpu_type(apart)
    async with apart.run_workers(queues=["gpu"]):
        job = await apart.submit("embed", {"number": 5})
        assert (job.queue, (await apart.wait(job.job_id, PATIENCE)).result) == ("gpu", 5)
        by_name = AsyncJobs(jobs.store.with_blocking(blocking=False))
        assert (await by_name.submit("embed", {"number": 6})).queue == "gpu", "the published default"
    await apart.close()


def test_memory_worker_serves_default_queues() -> None:
    jobs = Jobs("memory://")
    add_gpu_type(jobs)
    assert jobs.wait(jobs.submit("embed", {"number": 7}).job_id, PATIENCE).result == 7
    jobs.close()


@pytest.mark.parametrize("queue", ["", "a\nb", "x" * 129, 5])
def test_invalid_default_queue_is_rejected(queue: Any) -> None:
    with pytest.raises(InvalidInputError, match="queue"):
        Jobs("memory://").job("embed", queue=queue)


def test_failed_items_are_retried_in_the_same_place(jobs: Jobs) -> None:
    @jobs.job("pages")
    def pages(run: Run) -> None:
        with run.item("one"):
            raise ValueError("no text in it")

    jobs.create_job("before", parent_id="root")
    jobs.update_job("before", "completed")
    labels = {"tenant": "acme"}
    first = jobs.submit(
        pages.options(
            queue="gpu", limit_key="api", partition="acme", group="g", labels=labels, after=["job:before"],
            parent_id="root", job_id="a",
        )
    )  # fmt: skip
    with jobs.run_workers(queues=["gpu"]):
        jobs.wait("a", PATIENCE)
    jobs.delete_job("before")
    again = jobs.retry_job("a", only_failed=True)
    assert (again.labels, again.parent_id, again.after) == (labels, None, ())
    assert (again.queue, again.group) == ("gpu", "g")
    assert (again.limit_key, again.partition) == ("api", "acme")
    assert again.record["ready"] == first.record["ready"] == ready_name("pages", "gpu", slot_name("api", "acme"))


def test_attempts_name_worker_and_release(jobs: Jobs) -> None:
    jobs.submit("render", job_id="a")
    with jobs.run_workers():
        job = jobs.wait("a", PATIENCE)
    (attempt,) = job.to_dict()["attempts"]
    assert attempt["attempt"] == 1
    assert attempt["worker"] == job.worker
    assert attempt["ended_at"] == job.to_dict()["completed_at"]
    assert found(jobs, "release:none")[0] == set()
