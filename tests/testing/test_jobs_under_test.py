"""Jobs under test: submits are seen, `drain` runs them here, and the clock moves only when the test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from milepost import AsyncJobs, Fail, InvalidInputError, Job, Jobs, Retry, Run, Settings
from milepost.testing import FrozenClock, JobsUnderTest, async_jobs_under_test, jobs_under_test

application = Jobs("memory://")
seen: list[Any] = []


@application.job(
    "letter", max_attempts=3, backoff=lambda attempt: f"{attempt}m", on_failed=lambda job: seen.append(job.error)
)
def send(run: Run, to: str, fails: int = 0) -> str:
    seen.append((to, run.attempt, threading.current_thread() is threading.main_thread()))
    if run.attempt <= fails:
        raise ValueError(f"attempt {run.attempt}")
    return f"sent to {to}"


@application.job
async def send_all(run: Run, names: list[str]) -> int:
    for name in names:
        application.submit(send, to=name)
    await asyncio.sleep(0)
    return len(names)


@application.job("process", isolation="process")
def in_process(run: Run, when: timedelta) -> float:
    return when.total_seconds()


@pytest.fixture
def jobs() -> Iterator[JobsUnderTest]:
    seen.clear()
    with jobs_under_test(application) as jobs:
        yield jobs


def test_drain_runs_jobs_in_order_of_worker_with_those_they_submit(jobs: JobsUnderTest) -> None:
    application.submit(send_all, names=["a", "b"])
    application.submit(send.options(priority=5, queue="fast"), to="first")
    assert [job.status for job in jobs.submitted()] == ["pending", "pending"], "no worker starts"
    ran = jobs.drain()
    assert [job.job_type for job in ran] == ["letter", "send_all", "letter", "letter"]
    assert {job.status for job in ran} == {"completed"}
    assert [to for to, _, is_here in seen if is_here] == ["first", "a", "b"], "sync code runs in the thread of the test"
    assert jobs.result(ran[-1]) == "sent to b"
    assert jobs.drain() == []


def test_drain_runs_handlers_of_child_processes_here(jobs: JobsUnderTest) -> None:
    application.submit(in_process, when=timedelta(minutes=2))
    assert [job.result for job in jobs.drain()] == [120.0]


def test_clock_moves_retries_delays_and_deadlines(jobs: JobsUnderTest) -> None:
    application.submit(send, to="a", fails=2)
    application.submit(send.options(delay="2h"), to="late")
    gone = application.submit(send.options(expires_in="30m", not_before=jobs.clock.now + timedelta(hours=3)), to="gone")
    assert [(job.status, job.attempt) for job in jobs.drain()] == [("pending", 1)], "its retry waits for a minute"
    jobs.clock.advance(59)
    assert jobs.drain() == []
    jobs.clock.advance(1)
    assert [(job.status, job.attempt) for job in jobs.drain()] == [("pending", 2)]
    jobs.clock.advance(timedelta(minutes=2))
    assert [(job.status, job.attempt) for job in jobs.drain()] == [("completed", 3)]
    jobs.clock.advance("2h")
    assert [job.result for job in jobs.drain()] == ["sent to late"]
    ended = jobs.get_job(gone.job_id)
    assert ended is not None
    assert (ended.status, ended.error) == ("failed", f"not started before {ended.not_after.isoformat()}")  # type: ignore[union-attr]


def test_final_error_is_raised_after_its_job_has_failed(jobs: JobsUnderTest) -> None:
    application.submit(send.options(max_attempts=1), to="a", fails=1)
    application.submit(send, to="b")
    with pytest.raises(ValueError, match="attempt 1"):
        jobs.drain()
    assert seen[-1] == "attempt 1", "the hook was called"
    assert [job.status for job in jobs.submitted()] == ["failed", "pending"]
    assert [job.result for job in jobs.drain()] == ["sent to b"]


def test_collected_errors_are_in_records(jobs: JobsUnderTest) -> None:
    application.submit(send.options(max_attempts=1), to="a", fails=1)
    application.submit(send, to="b")
    assert [(job.status, job.error) for job in jobs.drain(errors="collect")] == [
        ("failed", "attempt 1"),
        ("completed", None),
    ]
    with pytest.raises(InvalidInputError, match="errors"):
        jobs.drain(errors="ignore")  # type: ignore[arg-type]


def test_fail_and_retry_keep_their_meaning() -> None:
    with jobs_under_test() as jobs:

        @jobs.job(max_attempts=5)
        def moody(run: Run, how: str) -> None:
            if how == "fail":
                raise Fail("never")
            if run.attempt == 1:
                raise Retry(delay="1h")

        jobs.submit(moody, "fail")
        jobs.submit(moody, "retry")
        assert [job.status for job in jobs.drain(errors="collect")] == ["failed", "pending"]
        jobs.clock.advance("1h")
        assert [job.status for job in jobs.drain()] == ["completed"]


def test_bad_parameters_fail_job_and_raise(jobs: JobsUnderTest) -> None:
    jobs.enqueue("letter", {"to": 5})
    with pytest.raises(InvalidInputError, match="to"):
        jobs.drain()
    assert [job.status for job in jobs.submitted()] == ["failed"]


def test_job_that_cancels_itself_ends_without_error(jobs: JobsUnderTest) -> None:
    @jobs.job("own-cancel")
    def cancel_itself(run: Run) -> None:
        jobs.cancel_job(run.job_id)

    try:
        jobs.submit(cancel_itself)
        assert [job.status for job in jobs.drain()] == ["cancelled"]
    finally:
        del application.handlers._by_type["own-cancel"]


def test_endless_jobs_are_reported(jobs: JobsUnderTest) -> None:
    @jobs.job("again", max_attempts=100, backoff=lambda attempt: 0)
    def again(run: Run) -> None:
        raise OSError

    try:
        jobs.submit(again)
        with pytest.raises(AssertionError, match="still claimable after 7 attempts; the last was again"):
            jobs.drain(limit=7)
    finally:
        del application.handlers._by_type["again"]


def test_exit_of_test_is_raised_even_if_job_is_retried(jobs: JobsUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "function", lambda run, **params: pytest.fail("a check in the handler"))
    application.submit(send, to="a")
    with pytest.raises(pytest.fail.Exception, match="a check in the handler"):
        jobs.drain()


def test_assert_submitted_finds_job_by_handler_name_parameters_and_options(jobs: JobsUnderTest) -> None:
    application.submit(send.options(priority=5, delay="1h", labels={"owner": "ana", "team": "x"}), to="a")
    newest = application.submit("letter", {"to": "a", "fails": 1})
    assert jobs.assert_submitted(send).job_id == newest.job_id
    assert jobs.assert_submitted("letter", {"to": "a"}, fails=1).job_id == newest.job_id
    found = jobs.assert_submitted(send.options(priority=5, delay="1h", labels={"owner": "ana"}), to="a")
    assert found.job_id != newest.job_id
    application.submit(in_process, when=timedelta(seconds=3))
    jobs.assert_submitted(in_process, when=timedelta(seconds=3))
    assert [job.job_type for job in jobs.submitted()] == ["letter", "letter", "process"]
    assert [job.job_type for job in jobs.submitted(send)] == ["letter", "letter"]


def test_assert_submitted_says_what_was_submitted(jobs: JobsUnderTest) -> None:
    with pytest.raises(AssertionError, match=r"no job letter\(to='b'\) was submitted, and no other"):
        jobs.assert_submitted(send, to="b")
    application.submit(send, to="a")
    with pytest.raises(AssertionError, match=r"no job letter\(to='b', priority=2\).*; submitted: letter\(to='a'\)"):
        jobs.assert_submitted(send.options(priority=2), to="b")
    with pytest.raises(InvalidInputError, match="on_lost"):
        jobs.assert_submitted(send.options(on_lost="fail"), to="a")


def test_application_has_its_own_store_again_after_block() -> None:
    url, manager = application.store.url, application.manager
    with jobs_under_test(application) as jobs:
        application.submit(send, to="a")
        assert application.store.url == jobs.store.url != url
    assert (application.store.url, application.manager) == (url, manager)
    assert application.list_jobs() == []


def test_clock_moves_retention() -> None:
    """Regression: jobs were kept for ever, and the settings of the application did not apply."""
    mine = Jobs("memory://", ttl=60, options=Settings(lease=90))

    @mine.job
    def add(run: Run) -> int:
        return 1

    with jobs_under_test(mine) as jobs:
        assert (mine.ttl, jobs.ttl, mine.settings.lease, jobs.settings.lease) == (60, 60, 90, 90)
        job = mine.submit(add)
        jobs.drain()
        for seconds, kept in ((59, True), (2, False)):
            jobs.clock.advance(seconds)
            jobs.drain()
            assert (jobs.get_job(job.job_id) is not None) is kept


async def test_clock_moves_retention_of_async_application() -> None:
    theirs = AsyncJobs("memory://", options=Settings(job_ttl=60))

    @theirs.job
    async def add(run: Run) -> int:
        return 1

    with async_jobs_under_test(theirs) as jobs:
        job = await theirs.submit(add)
        await jobs.drain()
        for seconds, kept in ((59, True), (2, False)):
            jobs.clock.advance(seconds)
            await jobs.drain()
            assert (await theirs.get_job(job.job_id) is not None) is kept


async def test_async_application_is_drained_in_loop_of_test() -> None:
    theirs = AsyncJobs("memory://")
    loops: list[Any] = []

    @theirs.job(max_attempts=2)
    async def fetch(run: Run, url: str) -> str:
        loops.append(asyncio.get_running_loop())
        if run.attempt == 1:
            raise OSError("offline")
        return url

    @theirs.job(on_completed=loops.append)
    def parse(run: Run) -> int:
        loops.append(threading.current_thread())
        return 1

    with async_jobs_under_test(theirs) as jobs:
        await theirs.submit(fetch, url="a")
        assert [job.status for job in await jobs.drain()] == ["pending"]
        jobs.clock.advance("1h")
        assert [job.result for job in await jobs.drain()] == ["a"]
        assert loops == [asyncio.get_running_loop()] * 2
        await theirs.submit(parse)
        await jobs.drain()
        assert (loops[2] is threading.main_thread(), type(loops[3])) == (False, Job)
        jobs.assert_submitted(fetch, url="a")


def test_clock_wakes_worker_of_test() -> None:
    clock = FrozenClock()
    with jobs_under_test(application, clock) as jobs, jobs.run_workers():
        job = application.submit(send.options(delay="1d"), to="late")
        clock.advance("1d")
        assert jobs.wait(job, timeout="1m").result == "sent to late"
        assert job.created_at < clock.now
