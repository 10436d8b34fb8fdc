"""Submitting: the three forms, checks, unique keys, times and bulk, on every store and both faces."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from milepost import AsyncJobs, DuplicateJob, InvalidInput, Jobs, JobStatus, Run, Secret, Settings, UnknownJobType
from tests.worker.conftest import MakeJobs


def reindex(run: Run, index: str, batch_size: int = 64, token: Secret | None = None) -> str:
    """Re-embed every chunk of an index."""
    if index == "wrong":
        raise ValueError(f"cannot log in with {token}")
    run.log(f"log in with {token}")
    run.progress(0.5, f"logged in with {token}")
    return f"{index} by {batch_size}"


def test_the_three_forms(jobs: Jobs) -> None:
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
    with jobs.running():
        assert jobs.wait(named.job_id, 20).result == "docs by 64"
        assert jobs.wait(optioned.job_id, 20).result == "docs by 2"


def test_parameters_are_checked_before_anything_is_written(jobs: Jobs) -> None:
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
        with pytest.raises(InvalidInput):
            call()
    assert jobs.count_jobs() == 0


def test_by_name_from_anywhere_against_what_workers_publish(make_jobs: MakeJobs, url: str) -> None:
    if url == "memory://":
        pytest.skip("another process cannot share the memory of this one")
    theirs, ours = make_jobs(), make_jobs()
    theirs.job("reindex", priority=3, concurrency=2, labels={"team": "search"})(reindex)
    with pytest.raises(UnknownJobType, match="no worker has published 'reindex'"):
        ours.submit("reindex", {"index": "docs"})
    with theirs.running():
        with pytest.raises(UnknownJobType, match="published: reindex"):
            ours.submit("unknown", {})
        with pytest.raises(InvalidInput, match="batch_size: 'x' is not a whole number"):
            ours.submit("reindex", {"index": "docs", "batch_size": "x"})
        job = ours.submit("reindex", {"index": "docs", "token": "hush-hush"})
        assert (job.priority, job.labels) == (3, {"team": "search"})
        assert job.params == {"index": "docs", "token": "***"}
        assert ours.wait(job.job_id, 20).result == "docs by 64"
        published = ours.job_type("reindex")
        assert (published.doc, published.concurrency) == ("Re-embed every chunk of an index.", 2)
        assert published.schema["properties"]["batch_size"] == {"type": "integer", "default": 64}
        (worker,) = ours.workers()
        assert (worker.types, worker.concurrency) == (("reindex",), 10)
    assert ours.workers() == []
    assert [known.name for known in ours.job_types()] == ["reindex"]


def test_a_secret_is_given_to_the_handler_and_shown_to_nobody(jobs: Jobs) -> None:
    seen: list[str] = []

    @jobs.job("login", max_attempts=1)
    def login(run: Run, token: Secret) -> None:
        seen.append(token)
        reindex(run, "docs", token=token)
        reindex(run, "wrong", token=token)

    with jobs.running():
        job = jobs.submit(login, token=Secret("hush-hush"))
        ended = jobs.wait(job.job_id, 20)
    assert seen == ["hush-hush"]
    assert ended.status == "failed"
    assert ended.error == "cannot log in with ***"
    shown = ended.to_json().decode() + str([event.to_dict() for event in jobs.events(job.job_id)])
    assert "hush-hush" not in shown
    assert "log in with ***" in shown


# --- unique keys ------------------------------------------------------------------------------------------------------


async def nap(run: Run) -> None:
    await asyncio.sleep(60)


def test_a_duplicate_gives_the_job_that_has_the_key(jobs: Jobs) -> None:
    handler = jobs.job("nap")(nap)
    first = jobs.submit(handler.options(unique_key="k"))
    assert jobs.submit(handler.options(unique_key="k")).job_id == first.job_id
    assert jobs.submit("nap", unique_key="k", on_duplicate="return").job_id == first.job_id
    with pytest.raises(DuplicateJob) as refused:
        jobs.submit(handler.options(unique_key="k", on_duplicate="refuse"))
    assert refused.value.job is not None
    assert refused.value.job.job_id == first.job_id
    jobs.cancel_job(first.job_id)
    assert jobs.submit(handler.options(unique_key="k")).job_id != first.job_id


def test_a_taken_id_is_a_duplicate_whatever_the_key_says(jobs: Jobs) -> None:
    handler = jobs.job("nap")(nap)
    jobs.submit(handler.options(job_id="a"))
    for how in ("return", "refuse", "supersede"):
        with pytest.raises(DuplicateJob, match="a already exists"):
            jobs.submit("nap", job_id="a", unique_key="k", on_duplicate=how)


def test_a_superseding_submit_whose_own_id_is_taken_cancels_nothing(jobs: Jobs) -> None:
    @jobs.job("one")
    def one(run: Run) -> None:
        pass

    asked = one.options(job_id="mine", unique_key="k", on_duplicate="supersede")
    jobs.enqueue("one", {}, job_id="mine", unique_key="k")
    with pytest.raises(DuplicateJob, match="mine"):
        jobs.submit(asked)
    found = jobs.get_job("mine")
    assert found is not None
    assert found.status == "pending"


def test_superseding_a_pending_job_cancels_it_in_the_same_step(jobs: Jobs) -> None:
    handler = jobs.job("nap")(nap)
    old = jobs.submit(handler.options(unique_key="k", not_before=datetime.now(UTC) + timedelta(hours=1)))
    new = jobs.submit(handler.options(unique_key="k", on_duplicate="supersede"))
    gone = jobs.get_job(old.job_id)
    assert gone is not None
    assert gone.status == "cancelled"
    assert gone.receipt is not None
    assert (gone.receipt.how, gone.receipt.reason) == ("never started", f"superseded by {new.job_id}")
    assert new.status == "pending"
    assert new.waiting_for is None


def test_superseding_a_running_job_waits_until_its_code_has_stopped(jobs: Jobs) -> None:
    began, let_go, order = threading.Event(), threading.Event(), []

    @jobs.job("slow")
    def slow(run: Run, name: str) -> None:
        order.append(f"{name} began")
        if name == "old":
            began.set()
            let_go.wait(30)
            while not run.cancelled:
                time.sleep(0.01)
            order.append("old stopped")
            run.check()

    with jobs.running():
        old = jobs.submit(slow.options(unique_key="k"), "old")
        assert began.wait(20)
        new = jobs.submit(slow.options(unique_key="k", on_duplicate="supersede"), "new")
        waiting = jobs.get_job(new.job_id)
        assert waiting is not None
        assert waiting.waiting_for == "the previous run to stop"
        let_go.set()
        assert jobs.wait(new.job_id, 20).status == "completed"
    ended = jobs.get_job(old.job_id)
    assert ended is not None
    assert ended.receipt is not None
    assert (ended.receipt.how, ended.receipt.confirmed) == ("cooperative", True)
    assert order == ["old began", "old stopped", "new began"]


# --- times, order, bulk -----------------------------------------------------------------------------------------------


def test_nothing_starts_before_its_time_and_it_starts_then(jobs: Jobs) -> None:
    handler = jobs.job("reindex")(reindex)
    with jobs.running():
        due = datetime.now(UTC) + timedelta(seconds=0.4)
        job = jobs.wait(jobs.submit(handler.options(not_before=due), "docs").job_id, 20)
    assert job.started_at is not None
    assert job.started_at >= due
    assert job.started_at - due < timedelta(seconds=5)


def test_nothing_starts_after_its_last_moment(make_jobs: MakeJobs) -> None:
    jobs = make_jobs(sweep=0.1)
    handler = jobs.job("reindex")(reindex)
    job = jobs.submit(handler.options(not_after=datetime.now(UTC) - timedelta(seconds=1)), "docs")
    with jobs.running():
        ended = jobs.wait(job.job_id, 20)
    assert ended.status == "failed"
    assert ended.failure is not None
    assert ended.failure.kind == "expired"
    assert ended.started_at is None


def test_higher_priority_first_then_the_oldest(jobs: Jobs) -> None:
    order: list[str] = []

    @jobs.job("note")
    async def note(run: Run, name: str) -> None:
        order.append(name)

    for name, priority in (("b", 0), ("a", 5), ("c", 0), ("d", -5)):
        jobs.enqueue("note", {"name": name}, priority=priority)
    with jobs.running(concurrency=1):
        for job in jobs.list_jobs():
            jobs.wait(job.job_id, 20)
    assert order == ["a", "b", "c", "d"]


def test_bulk_is_checked_first_and_keeps_its_order(jobs: Jobs) -> None:
    handler = jobs.job("reindex")(reindex)
    with pytest.raises(InvalidInput):
        jobs.submit_many(handler, [{"index": "a"}, {"index": 3}])
    with pytest.raises(InvalidInput, match="unique_key: belongs to one job"):
        jobs.submit_many(handler, [{"index": "a"}], unique_key="k")
    assert jobs.count_jobs() == 0
    with jobs.running():
        ids = jobs.submit_many(handler, [{"index": str(number)} for number in range(700)], labels={"bulk": "1"})
        assert len(set(ids)) == 700
        assert [jobs.wait(job_id, 60).result for job_id in (ids[0], ids[-1])] == ["0 by 64", "699 by 64"]
        for job_id in ids:
            jobs.wait(job_id, 60)
    assert jobs.count_jobs(status="completed", labels={"bulk": "1"}) == 700


async def test_the_async_face_is_the_same(url: str, namespace: str) -> None:
    jobs = AsyncJobs(url, options=Settings(namespace=namespace, grace=0.5))

    @jobs.job("twice")
    async def twice(run: Run, number: int) -> int:
        return 2 * number

    async with jobs.running():
        job = await jobs.submit(twice, number=4)
        assert (await jobs.wait(job.job_id, 20)).result == 8
        job = await jobs.submit("twice", {"number": 5}, unique_key="k", on_duplicate="supersede")
        assert (await jobs.wait(job.job_id, 20)).result == 10
        assert [known.name for known in await jobs.job_types()] == ["twice"]
        assert len(await jobs.workers()) == 1
        ids = await jobs.submit_many("twice", [{"number": 1}, {"number": 2}])
        assert [(await jobs.wait(job_id, 20)).result for job_id in ids] == [2, 4]
    await jobs.close()


def test_in_memory_a_worker_starts_at_the_first_submit() -> None:
    jobs = Jobs("memory://", options=Settings(grace=0.5))

    @jobs.job("where")
    def where(run: Run) -> Any:
        return run.job_type

    assert jobs.workers() == []
    job = jobs.submit(where)
    assert jobs.wait(job.job_id, 20).result == "where"
    assert len(jobs.workers()) == 1
    jobs.close()
    assert jobs.workers() == []


def test_in_memory_handlers_that_come_later_are_run_too_and_by_the_code_that_they_have_now() -> None:
    """As in a notebook, where a cell defines one after the other, or is run again."""
    jobs = Jobs("memory://", options=Settings(grace=0.5))

    def define(name: str, result: str) -> None:
        @jobs.job(name)
        def same(run: Run) -> str:
            return result

    define("first", "old")
    assert jobs.wait(jobs.submit("first").job_id, 10).result == "old"
    define("second", "second")
    assert jobs.wait(jobs.submit("second").job_id, 10).result == "second"
    define("first", "new")
    assert jobs.wait(jobs.submit("first").job_id, 10).result == "new"
    jobs.close()
    assert jobs.wait(jobs.submit("second").job_id, 10).result == "second"
    jobs.close()


def a_handler(run: Run) -> None:
    """Registered under another name than that which a child process finds."""


def test_in_memory_each_submit_says_why_no_worker_can_start() -> None:
    jobs = Jobs("memory://", options=Settings(grace=0.5))
    jobs.job("hidden", isolation="process")(a_handler)
    for _ in range(2):
        with pytest.raises(InvalidInput, match="is not the decorated function"):
            jobs.submit("hidden")
    jobs.close()
