"""Validation of callers' arguments, on every store: no text can be mistaken for other fields of the record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from milepost import Jobs, Run
from milepost.core.errors import IllegalTransitionError, InvalidInputError
from milepost.manager.sync import JobManager
from milepost.settings import Settings
from milepost.stores.factory import open_store


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.service("redis-server"))])
def manager(request: pytest.FixtureRequest) -> Iterator[JobManager]:
    if request.param == "memory":
        store = open_store("memory://")
    elif request.param == "sqlite":
        store = open_store(request.getfixturevalue("sqlite_url"))
    else:
        namespace = request.getfixturevalue("redis_namespace")
        store = open_store(request.getfixturevalue("redis_url"), namespace=namespace)
    manager = JobManager(store, options=Settings())
    yield manager
    manager.close()


@pytest.mark.parametrize("field", ["parent_id", "trace"])
@pytest.mark.parametrize("value", ["x\nlabels=team=other", "x\0y", "\ud800", "x" * 513, 5])
def test_parent_id_and_trace_must_be_one_line(manager: JobManager, field: str, value: Any) -> None:
    options: dict[str, Any] = {field: value}
    with pytest.raises(InvalidInputError) as created:
        manager.create_job("a", labels={"team": "mine"}, **options)
    with pytest.raises(InvalidInputError) as submitted:
        manager.enqueue("work", job_id="a", labels={"team": "mine"}, **options)
    assert (created.value.field, submitted.value.field) == (field, field)
    assert manager.get_job("a") is None


def test_labels_must_be_a_mapping(manager: JobManager) -> None:
    jobs, labels = Jobs(manager), cast("Any", "team=mine")

    @jobs.job("work")
    def work(run: Run) -> None: ...

    jobs.worker()  # so that in memory none starts at a submit
    for call in (
        lambda: manager.create_job("a", labels=labels),
        lambda: manager.list_jobs(labels=labels),
        lambda: manager.usage(labels=labels),
        lambda: jobs.submit(work.options(labels=labels)),
    ):
        with pytest.raises(InvalidInputError, match="labels: must be a mapping of str to str"):
            call()
    assert manager.count_jobs() == 0


@pytest.mark.parametrize("option", ["tiemout", "status", "on_duplicate"])
def test_unknown_option_is_rejected(manager: JobManager, option: str) -> None:
    options: dict[str, Any] = {option: "5m"}
    with pytest.raises(TypeError, match=option):
        manager.enqueue("work", job_id="a", **options)
    assert manager.get_job("a") is None


def test_retry_of_failed_items_says_why_it_is_rejected(manager: JobManager) -> None:
    with manager.track("ingestion", job_id="tracked") as run, run.item("broken.pdf"):
        raise ValueError("no text in it")
    manager.enqueue("work", job_id="waits")
    manager.enqueue("work", job_id="none")
    manager.cancel_job("none")
    reasons = {
        "tracked": "it was not submitted to a worker",
        "waits": "it is pending",
        "none": "no failed items are recorded",
    }
    for job_id, reason in reasons.items():
        with pytest.raises(IllegalTransitionError, match=f"failed items of job {job_id}: {reason}") as refused:
            manager.retry_job(job_id, only_failed=True)
        assert refused.value.job == manager.get_job(job_id)


def test_cancel_keeps_by_as_one_line(manager: JobManager) -> None:
    manager.create_job("a", labels={"team": "mine"})
    manager.cancel_job("a", by="me\nlabels=team=other\0status=completed")
    job = manager.get_job("a")
    assert job is not None
    assert job.receipt is not None
    assert (job.status, job.labels) == ("cancelled", {"team": "mine"})
    assert job.receipt.requested_by == "me labels=team=other status=completed"
    assert manager.events("a")[-1].data["stop_by"] == job.receipt.requested_by
