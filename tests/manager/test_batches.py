"""Batches on every store: counts, what follows them, and how they are closed."""

from __future__ import annotations

import asyncio
import threading

import pytest

from milepost import AsyncJobs, AsyncRun, Jobs, Run, Snooze
from milepost.app.batches import Batch
from milepost.core.errors import DuplicateJobError, IllegalTransitionError, InvalidInputError, JobNotFoundError
from milepost.core.values import MemberCounts
from milepost.stores.factory import open_store
from milepost.stores.sync_bridge import run_sync
from tests.waiting import PATIENCE, until


@pytest.fixture
def jobs(idle_jobs: Jobs) -> Jobs:
    jobs = idle_jobs

    @jobs.job("load")
    def load(run: Run, fails: bool = False) -> str:
        if fails:
            raise ValueError("no such file")
        return "loaded"

    @jobs.job("spread")
    def spread(run: Run) -> str:
        return jobs.submit("load", {}, group="b").job_id

    @jobs.job("report")
    def report(run: Run, who: str) -> str:
        return who

    return jobs


def test_batch_counts_its_jobs_and_runs_what_follows(jobs: Jobs) -> None:
    load, report = jobs.handlers["load"], jobs.handlers["report"]
    with jobs.batch("b", labels={"tenant": "acme"}) as batch:
        first = batch.submit(load)
        named = batch.submit("load", {}, labels={"n": "2"})
        many = batch.submit_many(load, [{}, {}])
        last = batch.then(report, who="ana")
        assert batch.counts() == MemberCounts(total=4, open=4)
        assert (last.waiting_for and last.waiting_for.params) == {"group": "group:b"}
    assert (first.group, first.labels, named.labels) == ("b", {"tenant": "acme"}, {"tenant": "acme", "n": "2"})
    also = jobs.submit(report.options(after=[batch]), "bob")  # type: ignore[call-overload]
    record = jobs.get_job("b")
    assert record is not None
    assert (record.job_type, record.status.value, record.message) == ("batch", "running", "4 jobs")
    assert not record.progress_known, "it is that of its jobs"
    assert record.labels == {"tenant": "acme"}
    with jobs.run_workers():
        assert jobs.wait(last, PATIENCE).result == "ana"
        assert jobs.wait(also, PATIENCE).result == "bob"
        ended = batch.wait(PATIENCE)
    assert (ended.status.value, ended.progress) == ("completed", 1.0)
    assert jobs.batch("b").counts() == MemberCounts(total=4, completed=4)
    assert [jobs.result(job_id) for job_id in many] == ["loaded", "loaded"]
    jobs.delete_job(first.job_id)
    assert batch.counts().progress == 1.0


def test_batch_with_a_failed_job_fails(jobs: Jobs) -> None:
    load, report = jobs.handlers["load"], jobs.handlers["report"]
    with jobs.batch("b") as batch:
        batch.submit(load)
        bad = batch.submit(load, fails=True)
        last = batch.then(report, who="ana")
        anyway = batch.then(report.options(on_failure="run"), who="bob")
        named = batch.then("report", {"who": "eve"})
    with jobs.run_workers():
        assert jobs.wait(anyway, PATIENCE).result == "bob"
        job = batch.wait(PATIENCE)
    assert (job.status.value, job.error) == ("failed", f"load failed: no such file (job {bad.job_id})")
    assert (job.progress, job.progress_known) == (1.0, True), "all its jobs have ended"
    assert [jobs.wait(one, PATIENCE).status.value for one in (last, named)] == ["cancelled", "cancelled"]
    counts = batch.counts()
    assert (counts.total, counts.completed, counts.failed, counts.ended) == (2, 1, 1, 2)


def test_empty_batch_ends_at_once(jobs: Jobs) -> None:
    with jobs.batch("b") as batch:
        last = batch.then("report", {"who": "ana"})
        assert batch.counts() == MemberCounts()
    assert batch.wait(PATIENCE).status == "completed"
    assert batch.counts() == MemberCounts()
    with jobs.run_workers():
        assert jobs.wait(last, PATIENCE).result == "ana"


def fill_a_disk(batch: Batch) -> None:
    with batch:
        batch.submit("load", {}, job_id="one")
        batch.then("report", {"who": "ana"}, job_id="last")
        raise OSError("the disk is full")


def test_exception_fails_the_batch_and_cancels_its_jobs(jobs: Jobs) -> None:
    with pytest.raises(OSError, match="full"):
        fill_a_disk(jobs.batch("b"))
    job = jobs.batch("b").wait(PATIENCE)
    assert (job.status.value, job.error) == ("failed", "OSError: the disk is full")
    assert jobs.batch("b").counts() == MemberCounts(total=1, cancelled=1)
    assert [jobs.wait(x, PATIENCE).status.value for x in ("one", "last")] == ["cancelled", "cancelled"]
    assert not job.progress_known, "0 % would be wrong: some of its jobs may have ended before"
    receipt = jobs.wait("one").receipt
    assert receipt is not None
    assert (receipt.requested_by, receipt.reason) == ("batch", "batch_failed")


def test_exception_keeps_the_jobs_if_asked_for(jobs: Jobs) -> None:
    batch = jobs.batch("b", on_error="keep")
    with pytest.raises(OSError, match="full"):
        fill_a_disk(batch)
    with jobs.run_workers():
        assert batch.wait(PATIENCE).status == "completed"
        assert jobs.wait("last", PATIENCE).result == "ana"
    assert jobs.result("one") == "loaded"


def test_open_batch_is_continued_and_a_closed_one_refuses_jobs(jobs: Jobs) -> None:
    with jobs.batch("b") as batch, jobs.batch("b") as same:
        batch.submit("load", {})
        same.submit("load", {})
        assert batch.counts().total == 2
    for submit in (
        lambda: batch.submit("load", {}),
        lambda: batch.submit_many("load", [{}]),
        lambda: jobs.submit("load", {}, group="b"),
        lambda: jobs.submit("load", {}, group="b", unique_key="k", on_duplicate="supersede"),
    ):
        with pytest.raises(InvalidInputError, match="group: batch 'b' is closed"):
            submit()
    with pytest.raises(IllegalTransitionError, match="Batch b is closed; open one with another name"):
        batch.__enter__()
    with pytest.raises(IllegalTransitionError, match="Batch b is closed, and ends with its jobs; callers may only"):
        jobs.update_job("b", message="Open")
    with jobs.batch("b2") as outer:
        outer.submit("load", {})
        run_sync(outer._async.close())
        run_sync(outer._async.close(OSError("after the end")))
        run_sync(outer._async.report())
    for name, total in (("b", 2), ("b2", 1)):
        record = jobs.get_job(name)
        assert record is not None
        assert (record.status.value, "stale" in record.record) == ("running", False)
        assert record.message == ("1 job" if total == 1 else f"{total} jobs")
        assert jobs.batch(name).counts() == MemberCounts(total=total, open=total)


@pytest.mark.parametrize("how", ["suspended", "snoozed", "paused", "released", "paused in async", "released in async"])
def test_batch_in_a_handler_stays_open_while_the_run_is_interrupted(jobs: Jobs, how: str) -> None:
    began, starts = threading.Event(), list[int]()

    def wait_to_be_stopped(run: Run) -> bool:
        starts.append(1)
        if len(starts) == 1:
            began.set()
            if how == "snoozed":
                raise Snooze(0.01)
        return len(starts) == 1 and how != "suspended"

    def fill(run: Run) -> None:
        with jobs.batch("b") as batch:
            batch.submit("load", {}, job_id=f"load-{len(starts)}")
            is_waiting = wait_to_be_stopped(run)
            if how == "suspended":
                run.sleep("nap", 0.5)
            while is_waiting:
                run.check()
                run._wait_in_place(0.01)

    async def afill(run: AsyncRun) -> None:
        with jobs.batch("b") as batch:
            batch.submit("load", {}, job_id=f"load-{len(starts)}")
            is_waiting = wait_to_be_stopped(run)
            while is_waiting:
                await asyncio.sleep(0.01)

    job = jobs.submit(jobs.job("fill", max_attempts=1)(afill if "async" in how else fill))  # type: ignore[call-overload]
    with jobs.run_workers():
        assert began.wait(PATIENCE)
        if "paused" in how:
            jobs.pause(job.job_id)
            until(lambda: (now := jobs.get_job(job.job_id)) and now.status == "pending")
            assert jobs.wait("load-0", PATIENCE).status == "completed"
            assert [one.status.value for one in jobs.list_jobs("batch")] == ["running"]
            jobs.resume(job.job_id)
        elif "released" not in how:
            assert jobs.wait(job.job_id, PATIENCE).error is None
    with jobs.run_workers():
        assert jobs.wait(job.job_id, PATIENCE).error is None
        assert jobs.batch("b").wait(PATIENCE).status == "completed"
    assert len(starts) == 2
    assert jobs.batch("b").counts() == MemberCounts(total=2, completed=2)


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
def test_batch_fails_with_the_run_that_has_it_open(jobs: Jobs, how: str) -> None:
    began = threading.Event()

    @jobs.job("fill", max_attempts=1, timeout=0.1 if how == "timed out" else None)
    def fill(run: Run) -> None:
        with jobs.batch("b") as batch:
            batch.submit("load", {}, job_id="load", delay="1h")
            began.set()
            while True:
                run.check()
                run._wait_in_place(0.01)

    job = jobs.submit(fill)
    with jobs.run_workers():
        assert began.wait(PATIENCE)
        if how == "cancelled":
            jobs.cancel_job(job.job_id)
        batch = jobs.batch("b").wait(PATIENCE)
    assert (batch.status.value, (batch.error or "").partition(":")[0]) == (
        "failed", "JobCancelled" if how == "cancelled" else "JobTimedOut"
    )  # fmt: skip
    assert jobs.wait("load", PATIENCE).status == "cancelled"


def test_running_job_adds_jobs_to_its_closed_batch(jobs: Jobs) -> None:
    with jobs.batch("b") as batch:
        parent = batch.submit("spread", {})
        last = batch.then("report", {"who": "ana"})
    outside = jobs.submit("spread", {})
    with jobs.run_workers():
        assert jobs.wait(last, PATIENCE).result == "ana"
        assert "batch 'b' is closed" in (jobs.wait(outside, PATIENCE).error or "")
    assert batch.counts() == MemberCounts(total=2, completed=2)
    assert jobs.wait(jobs.result(parent)).status == "completed"


def test_invalid_batches_are_refused(jobs: Jobs) -> None:
    with pytest.raises(InvalidInputError, match="name: 'a b' must be 1 to 128"):
        jobs.batch("a b")
    with pytest.raises(InvalidInputError, match="on_error: 'x' must be"):
        jobs.batch("b", on_error="x")  # type: ignore[arg-type]
    for job_type in ("generic", "batch"):
        name = f"taken-{job_type}"
        jobs.create_job(name, job_type)
        with pytest.raises(DuplicateJobError, match=f"Job {name} already exists, and is not a batch"):
            jobs.batch(name).__enter__()
        taken = jobs.get_job(name)
        assert taken is not None
        assert (taken.status.value, taken.attempt, taken.version) == ("pending", 0, 1)
    unknown = jobs.batch("none")
    for call in (unknown.counts, lambda: unknown.submit("report"), lambda: unknown.submit_many("report", [{}])):
        with pytest.raises(JobNotFoundError, match=r"^Batch none not found; open it in a with block$"):
            call()
    with pytest.raises(JobNotFoundError):
        unknown.wait()
    with pytest.raises(InvalidInputError, match="no job is in the group 'none'"):
        jobs.batch("none").then("report", {"who": "ana"})
    assert jobs.count_jobs() == 2


def test_text_in_place_of_a_list_in_after_is_refused_by_then(jobs: Jobs) -> None:
    report = jobs.handlers["report"]
    with jobs.batch("b") as batch:
        for call in (
            lambda: batch.then(report.options(after="job:a"), who="ana"),
            lambda: batch.then("report", {"who": "ana"}, after="job:a"),
        ):
            with pytest.raises(InvalidInputError, match="after: 'job:a' must be a list of at most 100 jobs or groups"):
                call()
        assert batch.counts().total == 0


def test_job_of_another_group_is_refused_by_a_batch(jobs: Jobs) -> None:
    @jobs.job("part")
    def part(run: Run) -> None: ...

    with jobs.batch("mine") as batch:
        for submit in (
            lambda: batch.submit(part.options(group="other")),
            lambda: batch.submit("part", group="other"),
            lambda: batch.submit_many(part.options(group="other"), [{}]),
            lambda: batch.submit_many("part", [{}], group="other"),
        ):
            with pytest.raises(
                InvalidInputError, match="group: 'other', but the job is submitted to the batch 'mine'; omit it"
            ):
                submit()
        assert jobs.count_jobs("part") == 0
        assert batch.submit("part", group="mine").group == "mine"
        with pytest.raises(InvalidInputError, match="labels"):
            batch.submit("part", labels="acme")


def test_batch_in_an_event_loop(url: str, namespace: str) -> None:
    async def main() -> None:
        store = open_store(url, namespace=namespace if "redis" in url else "milepost", blocking=False)
        jobs = AsyncJobs(store)

        @jobs.job("load")
        async def load(run: Run) -> int:
            return 1

        async with jobs.run_workers():
            async with jobs.batch("b") as batch:
                await batch.submit(load)
                await batch.submit_many("load", [{}, {}])
                last = await batch.then(load)
                await batch.report()
                record = await jobs.get_job("b")
                assert record is not None
                assert record.message == "Open, 3 jobs so far"
            assert (await jobs.wait(last, PATIENCE)).result == 1
            assert (await batch.wait(PATIENCE)).status == "completed"
            assert await batch.counts() == MemberCounts(total=3, completed=3)
            with pytest.raises(OSError, match="no"):
                async with jobs.batch("c"):
                    raise OSError("no")
            assert (await jobs.batch("c").wait(PATIENCE)).status == "failed"
        await jobs.close()

    asyncio.run(main())


def test_failed_items_of_a_closed_batch_are_retried_outside_of_it(jobs: Jobs) -> None:
    """It was refused, and nothing could be done about it."""

    @jobs.job("pages")
    def pages(run: Run) -> None:
        with run.item("one"):
            raise ValueError("no text in it")

    with jobs.batch("b", labels={"tenant": "acme"}) as batch:
        first = batch.submit(pages)
        inside = batch.submit("load", {})
        with jobs.run_workers():
            jobs.wait(first, PATIENCE)
            jobs.wait(inside, PATIENCE)
        assert jobs.retry_job(first.job_id, only_failed=True).group == "b"
    again = jobs.retry_job(first.job_id, only_failed=True)
    assert (again.group, again.labels, again.retry_of) == (None, {"tenant": "acme"}, first.job_id)
    assert batch.counts().total == 3
