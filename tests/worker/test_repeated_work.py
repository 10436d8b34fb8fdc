"""The warning about work before a suspension that runs again after it."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from milepost import AsyncRun, Jobs, Run
from milepost.run import repeated_work
from milepost.testing import jobs_under_test


class Clock:
    """A clock that work moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = 0.0
        monkeypatch.setattr(repeated_work, "time", SimpleNamespace(monotonic=lambda: self.at))

    def work(self, *_: Any) -> None:
        self.at += 184

    async def awork(self, *_: Any) -> None:
        self.work()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def warnings(jobs: Jobs, job_id: str) -> list[str]:
    """Return the warnings in the log of a job."""
    events = [event for event in jobs.events(job_id) if event.kind == "log"]
    return [line["text"] for event in events for line in event.data["lines"] if line["level"] == "warning"]


def fail(clock: Clock) -> None:
    clock.work()
    raise OSError("no answer")


def handler_of(clock: Clock, what: str, *, is_async: bool) -> Any:
    def work(run: Run) -> None:
        if what == "plain":
            clock.work()
        elif what == "step":
            run.step("work", clock.work)
        elif what == "failed step":
            with suppress(OSError):
                run.step("work", fail, clock)
        elif what == "map":
            run.map(clock.work, [1, 2], key=str)
        elif what == "map without results":
            run.map(clock.work, [1, 2], key=str, resume=False)
        elif what == "state":
            for _ in run.each([1, 2], state=run.state(n=0)):
                clock.work()
        elif what == "resume":
            for _ in run.each([1, 2], resume=True):
                clock.work()
        elif what == "each":
            for _ in run.each([1, 2]):
                clock.work()
        elif what == "checkpoint":
            run.checkpoint(1)
            clock.work()

    def suspends(run: Run) -> None:
        work(run)
        run.sleep("nap", 60)

    async def asuspends(run: AsyncRun) -> None:
        if what == "step":
            await run.step("work", clock.awork)
        elif what == "failed step":
            with suppress(OSError):
                await run.step("work", fail, clock)
        elif what.startswith("map"):
            await run.map(clock.awork, [1, 2], key=str, resume=None if what == "map" else False)
        else:
            work(run)
        await run.sleep("nap", 60)

    return asuspends if is_async else suspends


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("what", "seconds"),
    [
        ("plain", 184), ("step", 0), ("failed step", 184), ("map", 0), ("map without results", 368), ("state", 0), ("resume", 0), ("each", 368),
        ("checkpoint", 0), ("none", 0),
    ],
)  # fmt: skip
def test_work_that_runs_again_is_named(clock: Clock, what: str, seconds: int, is_async: bool) -> None:
    with jobs_under_test() as jobs:
        jobs.job("suspends")(handler_of(clock, what, is_async=is_async))
        job = jobs.submit("suspends")
        jobs.drain()
        found = jobs.get_job(job.job_id)
        assert found is not None
        assert found.record.get("wake_at"), found.error
        text = f"{seconds} s of work before sleep('nap') will run again; put it into run.step or give the loop state="
        assert warnings(jobs, job.job_id) == ([text] if seconds else [])


def test_call_that_suspends_is_named(clock: Clock) -> None:
    with jobs_under_test() as jobs:

        @jobs.job("part")
        def part(run: Run) -> None: ...

        @jobs.job("asks")
        def asks(run: Run, question: bool) -> None:
            clock.work()
            if question:
                run.ask("publish", "Publish?", bool)
            run.submit_child("a", part)
            run.join()

        for question, call in ((True, "ask('publish')"), (False, "join()")):
            job = jobs.submit(asks, question=question)
            jobs.drain()
            assert f"184 s of work before {call} will run again" in warnings(jobs, job.job_id)[0]
