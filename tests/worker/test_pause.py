"""A paused job continues its attempt after a resume, without repeating what its loops have finished."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from milepost import AsyncRun, IllegalTransitionError, JobNotFoundError, JobPaused, Jobs, Run
from tests.waiting import PATIENCE, current, until

pytestmark = pytest.mark.timing


@pytest.mark.parametrize("is_async", [False, True])
def test_paused_job_continues_at_the_item_where_it_stopped(jobs: Jobs, is_async: bool) -> None:
    items: list[int] = []
    reached = threading.Event()

    def take(run: Run, item: int) -> None:
        items.append(item)
        if item == 3 and not reached.is_set():
            reached.set()
            until(lambda: run.cancelled)

    def loop(run: Run) -> int:
        for item in run.each(range(8), resume=True):
            take(run, item)
        return run.attempt

    async def aloop(run: AsyncRun) -> int:
        for item in run.each(range(8), resume=True):
            take(run, item)
        return run.attempt

    jobs.job("loops")(aloop if is_async else loop)
    with jobs.run_workers(concurrency=1):
        job_id = jobs.submit("loops").job_id
        assert reached.wait(PATIENCE)
        paused = jobs.pause(job_id, by="ana")
        until(lambda: current(jobs, job_id).activity.startswith("Paused; a resume "))
        done = list(items)
        resumed = jobs.resume(job_id, by="ana")
        job = jobs.wait(job_id, PATIENCE)
    assert (paused.status, paused.attempt, resumed.status) == ("pending", 1, "pending")
    assert (job.result, job.crashes, len(job.attempts)) == (1, 0, 1)
    assert sorted(set(items)) == list(range(8))
    assert len(items) <= 9, f"{items}: of {done} at most the open item is repeated"
    events = [event.kind for event in jobs.events(job_id)]
    assert [kind for kind in events if kind in ("paused", "resumed", "running", "completed")] == [
        "running", "paused", "resumed", "running", "completed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        ("nothing", "starts its code again from the beginning"),
        ("steps", "starts its code again, with its kept steps"),
        ("a checkpoint", "starts its code again, with its last checkpoint"),
        ("a position", "continues its resumable loops where they stopped"),
    ],
)
def test_paused_job_says_what_a_resume_repeats(jobs: Jobs, kept: str, says: str) -> None:
    inside = threading.Event()

    @jobs.job("loops")
    def loop(run: Run) -> None:
        if kept == "steps":
            run.step("one", str, 1)
        for item in run.each(range(8), resume=kept == "a position"):
            if kept == "a checkpoint":
                run.checkpoint({"item": item})
            if item == 3:
                inside.set()
                until(lambda: run.cancelled)

    with jobs.run_workers(concurrency=1):
        job_id = jobs.submit("loops").job_id
        assert inside.wait(PATIENCE)
        jobs.pause(job_id)
        until(lambda: current(jobs, job_id).activity.startswith("Paused; a resume "))
        assert current(jobs, job_id).activity == f"Paused; a resume {says}"


def test_step_under_way_is_called_again_after_a_resume(jobs: Jobs) -> None:
    called: list[str] = []
    inside = threading.Event()

    @jobs.job("steps")
    def steps(run: Run) -> str:
        def call(name: str) -> str:
            called.append(name)
            if name == "second" and called.count(name) == 1:
                inside.set()
                until(lambda: run.cancelled)
            return name

        return run.step("first", call, "first") + run.step("second", call, "second")

    with jobs.run_workers(concurrency=1):
        job_id = jobs.submit("steps").job_id
        assert inside.wait(PATIENCE)
        jobs.pause(job_id)
        until(lambda: current(jobs, job_id).activity.startswith("Paused; a resume "))
        jobs.resume(job_id)
        assert jobs.wait(job_id, PATIENCE).result == "firstsecond"
    assert called == ["first", "second", "second"]


def test_pause_is_refused_for_what_it_cannot_stop(jobs: Jobs) -> None:
    job_id = jobs.enqueue("waits").job_id
    assert jobs.pause(job_id).activity == "Paused; it has not started yet"
    with pytest.raises(IllegalTransitionError, match="it is paused"):
        jobs.pause(job_id)
    jobs.resume(job_id)
    with pytest.raises(IllegalTransitionError, match="it is not paused"):
        jobs.resume(job_id)
    jobs.pause(job_id)
    assert jobs.cancel_job(job_id).status == "cancelled"
    with pytest.raises(IllegalTransitionError, match="Cannot resume job with status cancelled"):
        jobs.resume(job_id)
    manual = jobs.create_job(job_type="manual").job_id
    with pytest.raises(IllegalTransitionError, match="it was not submitted to a worker"):
        jobs.pause(manual)
    with pytest.raises(JobNotFoundError):
        jobs.pause("unknown")


def test_code_sees_the_pause_as_a_stop(jobs: Jobs) -> None:
    seen: list[Any] = []
    inside = threading.Event()

    @jobs.job
    def watches(run: Run) -> None:
        inside.set()
        try:
            while not seen:
                run.check()
        except JobPaused as reason:
            seen.append(str(reason))
            raise

    with jobs.run_workers(concurrency=1):
        job_id = jobs.submit(watches).job_id
        assert inside.wait(PATIENCE)
        jobs.pause(job_id)
        until(lambda: current(jobs, job_id).receipt and current(jobs, job_id).receipt.confirmed)  # type: ignore[union-attr]
        assert jobs.cancel_job(job_id).status == "cancelled"
    assert seen == ["paused"]
