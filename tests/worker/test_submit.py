"""Submits: the three forms, validation, unique keys, times and bulk, on every store, blocking and async."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from milepost import (
    AsyncJobs,
    DuplicateJobError,
    InvalidInputError,
    Jobs,
    JobStatus,
    Run,
    Secret,
    Settings,
    UnknownJobTypeError,
)
from milepost.core.values import WaitingFor
from tests.waiting import PATIENCE
from tests.worker.conftest import MakeJobs

pytestmark = pytest.mark.timing


def reindex(run: Run, index: str, batch_size: int = 64, token: Secret | None = None) -> str:
    """Re-embed every chunk of an index."""
    if index == "wrong":
        raise ValueError(f"cannot log in with {token}")
    run.log(f"log in with {token}")
    run.progress(0.5, f"logged in with {token}")
    return f"{index} by {batch_size}"


def test_submit_in_three_forms(jobs: Jobs) -> None:
    handler = jobs.job("reindex", max_attempts=3, timeout="2h", priority=1, labels={"team": "search"})(reindex)
    plain = jobs.submit(handler, index="docs")
    assert (plain.job_type, plain.params, plain.status) == ("reindex", {"index": "docs"}, JobStatus.PENDING)
    assert (plain.max_attempts, plain.priority, plain.labels) == (3, 1, {"team": "search"})
    assert plain.record["timeout"] == str(7200 * 10**6)
    optioned = jobs.submit(handler.options(priority=5, labels={"owner": "ana"}, max_attempts=1), "docs", batch_size=2)
    assert (optioned.priority, optioned.labels, optioned.max_attempts) == (5, {"team": "search", "owner": "ana"}, 1)
    assert optioned.params == {"index": "docs", "batch_size": 2}
    named = jobs.submit("reindex", {"index": "docs"}, priority=7, metadata={"a": 1}, job_id="mine")
    assert (named.job_id, named.priority, named.metadata) == ("mine", 7, {"a": 1})
    with jobs.run_workers():
        assert jobs.wait(named.job_id, PATIENCE).result == "docs by 64"
        assert jobs.wait(optioned.job_id, PATIENCE).result == "docs by 2"


def test_parameters_are_checked_before_any_write(jobs: Jobs) -> None:
    handler = jobs.job("reindex")(reindex)
    for call in (
        lambda: jobs.submit(handler, index=3),  # type: ignore[arg-type]
        lambda: jobs.submit(handler),  # type: ignore[call-arg]
        lambda: jobs.submit("reindex", {"index": "a", "size": 2}),
        lambda: jobs.submit("reindex", {"index": "a"}, colour="red"),  # type: ignore[call-arg]
        lambda: jobs.submit("reindex", ["a"]),  # type: ignore[arg-type]
        lambda: jobs.submit(reindex, index="a"),  # type: ignore[arg-type]
        lambda: jobs.submit(handler.options(not_before=datetime(2026, 1, 1)), index="a"),
    ):
        with pytest.raises(InvalidInputError):
            call()
    assert jobs.count_jobs() == 0


def test_parameters_of_a_submit_by_name_are_refused_with_the_remedy(jobs: Jobs) -> None:
    with pytest.raises(
        InvalidInputError, match=r"index: is not an option .*; a submit by name takes one dict .*; options: "
    ):
        jobs.submit("reindex", index="docs")  # type: ignore[call-arg]


def test_submit_by_name_uses_published_schema(make_jobs: MakeJobs, url: str) -> None:
    if url == "memory://":
        pytest.skip("another process cannot share the memory of this one")
    theirs, ours = make_jobs(), make_jobs()
    theirs.job("reindex", priority=3, concurrency=2, labels={"team": "search"})(reindex)
    with pytest.raises(UnknownJobTypeError, match="no worker has published 'reindex'"):
        ours.submit("reindex", {"index": "docs"})
    with theirs.run_workers():
        with pytest.raises(UnknownJobTypeError, match="published: reindex"):
            ours.submit("unknown", {})
        with pytest.raises(InvalidInputError, match="batch_size: 'x' is not a whole number"):
            ours.submit("reindex", {"index": "docs", "batch_size": "x"})
        job = ours.submit("reindex", {"index": "docs", "token": "hush-hush"})
        assert (job.priority, job.labels) == (3, {"team": "search"})
        assert job.params == {"index": "docs", "token": "***"}
        assert ours.wait(job.job_id, PATIENCE).result == "docs by 64"
        published = ours.job_type("reindex")
        assert (published.doc, published.concurrency) == ("Re-embed every chunk of an index.", 2)
        assert published.schema["properties"]["batch_size"] == {"type": "integer", "default": 64}
        (worker,) = ours.workers()
        assert (worker.types, worker.concurrency) == (("reindex",), 10)
    assert ours.workers() == []
    assert [known.name for known in ours.job_types()] == ["reindex"]


def test_secret_reaches_handler_and_is_masked_elsewhere(jobs: Jobs) -> None:
    seen: list[str] = []

    @jobs.job("login", max_attempts=1)
    def login(run: Run, token: Secret) -> None:
        seen.append(token)
        reindex(run, "docs", token=token)
        reindex(run, "wrong", token=token)

    with jobs.run_workers():
        job = jobs.submit(login, token=Secret("hush-hush"))
        ended = jobs.wait(job.job_id, PATIENCE)
    assert seen == ["hush-hush"]
    assert ended.status == "failed"
    assert ended.error == "cannot log in with ***"
    shown = ended.to_json().decode() + str([event.to_dict() for event in jobs.events(job.job_id)])
    assert "hush-hush" not in shown
    assert "log in with ***" in shown


# --- unique keys ------------------------------------------------------------------------------------------------------


async def nap(run: Run) -> None:
    await asyncio.sleep(60)


def test_duplicate_returns_job_with_key(jobs: Jobs) -> None:
    handler = jobs.job("nap")(nap)
    first = jobs.submit(handler.options(unique_key="k"))
    assert jobs.submit(handler.options(unique_key="k")).job_id == first.job_id
    assert jobs.submit("nap", unique_key="k", on_duplicate="return").job_id == first.job_id
    with pytest.raises(DuplicateJobError) as refused:
        jobs.submit(handler.options(unique_key="k", on_duplicate="refuse"))
    assert refused.value.job is not None
    assert refused.value.job.job_id == first.job_id
    jobs.cancel_job(first.job_id)
    assert jobs.submit(handler.options(unique_key="k")).job_id != first.job_id


def test_taken_id_is_duplicate_regardless_of_key(jobs: Jobs) -> None:
    handler = jobs.job("nap")(nap)
    jobs.submit(handler.options(job_id="a"))
    for how in ("return", "refuse", "supersede"):
        with pytest.raises(DuplicateJobError, match="a already exists"):
            jobs.submit("nap", job_id="a", unique_key="k", on_duplicate=how)


def test_supersede_with_taken_id_cancels_nothing(jobs: Jobs) -> None:
    @jobs.job("one")
    def one(run: Run) -> None:
        pass

    asked = one.options(job_id="mine", unique_key="k", on_duplicate="supersede")
    jobs.enqueue("one", {}, job_id="mine", unique_key="k")
    with pytest.raises(DuplicateJobError, match="mine"):
        jobs.submit(asked)
    found = jobs.get_job("mine")
    assert found is not None
    assert found.status == "pending"


def test_supersede_cancels_pending_job_atomically(jobs: Jobs) -> None:
    handler = jobs.job("nap")(nap)
    old = jobs.submit(handler.options(unique_key="k", not_before=datetime.now(UTC) + timedelta(hours=1)))
    new = jobs.submit(handler.options(unique_key="k", on_duplicate="supersede"))
    gone = jobs.get_job(old.job_id)
    assert gone is not None
    assert gone.status == "cancelled"
    assert gone.receipt is not None
    assert (gone.receipt.how, gone.receipt.reason) == ("never_started", f"superseded by {new.job_id}")
    assert new.status == "pending"
    assert new.waiting_for is None


def test_supersede_waits_until_running_code_stopped(jobs: Jobs) -> None:
    began, let_go, order = threading.Event(), threading.Event(), []

    @jobs.job("slow")
    def slow(run: Run, name: str) -> None:
        order.append(f"{name} began")
        if name == "old":
            began.set()
            let_go.wait(PATIENCE)
            while not run.cancelled:
                time.sleep(0.01)
            order.append("old stopped")
            run.check()

    with jobs.run_workers():
        old = jobs.submit(slow.options(unique_key="k"), "old")
        assert began.wait(PATIENCE)
        new = jobs.submit(slow.options(unique_key="k", on_duplicate="supersede"), "new")
        waiting = jobs.get_job(new.job_id)
        assert waiting is not None
        assert waiting.waiting_for == WaitingFor("previous_run_stopping")
        let_go.set()
        assert jobs.wait(new.job_id, PATIENCE).status == "completed"
    ended = jobs.get_job(old.job_id)
    assert ended is not None
    assert ended.receipt is not None
    assert (ended.receipt.how, ended.receipt.confirmed) == ("cooperative", True)
    assert order == ["old began", "old stopped", "new began"]


# --- times, order, bulk -----------------------------------------------------------------------------------------------


def test_not_before_delays_start(jobs: Jobs) -> None:
    handler = jobs.job("reindex")(reindex)
    with jobs.run_workers():
        due = datetime.now(UTC) + timedelta(seconds=0.4)
        job = jobs.wait(jobs.submit(handler.options(not_before=due), "docs").job_id, PATIENCE)
    assert job.started_at is not None
    assert job.started_at >= due


def test_not_after_expires_job(make_jobs: MakeJobs) -> None:
    jobs = make_jobs(sweep=0.1)
    handler = jobs.job("reindex")(reindex)
    job = jobs.submit(handler.options(not_after=datetime.now(UTC) - timedelta(seconds=1)), "docs")
    with jobs.run_workers():
        ended = jobs.wait(job.job_id, PATIENCE)
    assert ended.status == "failed"
    assert ended.failure is not None
    assert ended.failure.kind == "expired"
    assert ended.started_at is None


@pytest.mark.parametrize("delay", [7200, 7200.0, "2h", timedelta(hours=2)], ids=repr)
def test_delay_and_expires_in_count_from_creation(jobs: Jobs, delay: Any) -> None:
    handler = jobs.job("reindex")(reindex)
    one = jobs.submit(handler.options(delay=delay, expires_in="1d"), "docs")
    named = jobs.submit("reindex", {"index": "docs"}, delay=delay)
    [many] = jobs.submit_many(handler, [{"index": "docs"}], delay=delay)
    for job in (one, named, jobs.get_job(many)):
        assert job is not None
        assert job.not_before == job.created_at + timedelta(hours=2)
    assert one.not_after == one.created_at + timedelta(days=1)
    assert named.not_after is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            {"delay": "2h", "expires_in": "1h"},
            "expires_in: '1h' is less than the delay '2h': the job could never start",
        ),
        (
            {"not_before": datetime(2126, 1, 2, tzinfo=UTC), "not_after": datetime(2126, 1, 1, tzinfo=UTC)},
            "not_after: 2126-01-01 00:00:00+00:00 is before not_before, 2126-01-02 00:00:00+00:00",
        ),
        ({"timeout": 0}, "timeout: 0 must be more than 0; omit it for no limit"),
        ({"timeout": "0s"}, "timeout: '0s' must be more than 0"),
    ],
)
def test_times_that_let_no_job_run_are_refused(jobs: Jobs, options: Any, error: str) -> None:
    handler = jobs.job("reindex")(reindex)
    with pytest.raises(InvalidInputError, match=re.escape(error)):
        jobs.submit(handler.options(**options), "docs")
    with pytest.raises(InvalidInputError, match=re.escape("timeout: 0.0 must be more than 0")):
        jobs.job("other", timeout=0)(reindex)
    assert jobs.list_jobs() == []


def test_delayed_job_starts_when_it_is_due(jobs: Jobs) -> None:
    handler = jobs.job("reindex")(reindex)
    with jobs.run_workers():
        due = jobs.submit(handler.options(delay=0.3), "docs").not_before
        job = jobs.wait(jobs.list_jobs()[0].job_id, PATIENCE)
    assert due is not None
    assert job.started_at is not None
    assert job.started_at >= due


def test_job_that_expires_at_once_fails_unstarted(make_jobs: MakeJobs) -> None:
    jobs = make_jobs(sweep=0.1)
    handler = jobs.job("reindex")(reindex)
    job = jobs.submit(handler.options(expires_in=0), "docs")
    with jobs.run_workers():
        ended = jobs.wait(job.job_id, PATIENCE)
    assert ended.failure is not None
    assert (ended.failure.kind, ended.started_at) == ("expired", None)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"delay": "soon"}, "delay: 'soon' is not a duration; use 90, '90s', '2h' or '1h30m'"),
        ({"delay": 1, "not_before": datetime.now(UTC)}, "delay: cannot be combined with not_before; omit one of them"),
        ({"expires_in": 1, "not_after": datetime.now(UTC)}, "expires_in: cannot be combined with not_after; omit one of them"),
    ],
    ids=["text", "not-before", "not-after"],
)  # fmt: skip
def test_invalid_delay_is_rejected(jobs: Jobs, options: Any, problem: str) -> None:
    handler = jobs.job("reindex")(reindex)
    with pytest.raises(InvalidInputError) as error:
        jobs.submit(handler.options(**options), "docs")
    assert str(error.value) == problem
    assert jobs.count_jobs() == 0


def test_option_among_parameters_names_remedy(jobs: Jobs) -> None:
    """Regression: `submit(handler, priority=5)` only said that there is no such parameter."""
    handler = jobs.job("reindex")(reindex)
    with pytest.raises(InvalidInputError) as error:
        jobs.submit(handler, index="docs", priority=5)  # type: ignore[call-arg]
    assert str(error.value) == (
        "priority: is an option, not a parameter of reindex; write submit(reindex.options(priority=...), ...)"
    )


def test_parameter_may_have_name_of_option(jobs: Jobs) -> None:
    @jobs.job
    def ship(run: Run, priority: str) -> None:
        pass

    assert jobs.submit(ship, priority="express").params == {"priority": "express"}


def test_higher_priority_first_then_oldest(jobs: Jobs) -> None:
    order: list[str] = []

    @jobs.job("note")
    async def note(run: Run, name: str) -> None:
        order.append(name)

    for name, priority in (("b", 0), ("a", 5), ("c", 0), ("d", -5)):
        jobs.enqueue("note", {"name": name}, priority=priority)
    with jobs.run_workers(concurrency=1):
        for job in jobs.list_jobs():
            jobs.wait(job.job_id, PATIENCE)
    assert order == ["a", "b", "c", "d"]


def test_submit_many_checks_first_and_keeps_order(jobs: Jobs) -> None:
    handler = jobs.job("reindex")(reindex)
    with pytest.raises(InvalidInputError):
        jobs.submit_many(handler, [{"index": "a"}, {"index": 3}])
    with pytest.raises(InvalidInputError, match="unique_key: belongs to a single job"):
        jobs.submit_many(handler, [{"index": "a"}], unique_key="k")
    assert jobs.count_jobs() == 0
    with jobs.run_workers():
        ids = jobs.submit_many(handler, [{"index": str(number)} for number in range(700)], labels={"bulk": "1"})
        assert len(set(ids)) == 700
        assert [jobs.wait(job_id, 60).result for job_id in (ids[0], ids[-1])] == ["0 by 64", "699 by 64"]
        for job_id in ids:
            jobs.wait(job_id, 60)
    assert jobs.count_jobs(status="completed", labels={"bulk": "1"}) == 700


async def test_async_submit_is_the_same(url: str, namespace: str) -> None:
    jobs = AsyncJobs(url, options=Settings(namespace=namespace, grace=0.5))

    @jobs.job("twice")
    async def twice(run: Run, number: int) -> int:
        return 2 * number

    async with jobs.run_workers():
        job = await jobs.submit(twice, number=4)
        assert (await jobs.wait(job.job_id, PATIENCE)).result == 8
        job = await jobs.submit("twice", {"number": 5}, unique_key="k", on_duplicate="supersede")
        assert (await jobs.wait(job.job_id, PATIENCE)).result == 10
        assert [known.name for known in await jobs.job_types()] == ["twice"]
        assert len(await jobs.workers()) == 1
        ids = await jobs.submit_many("twice", [{"number": 1}, {"number": 2}])
        assert [(await jobs.wait(job_id, PATIENCE)).result for job_id in ids] == [2, 4]
    await jobs.close()
