"""The seam without an engine's own processes: one that runs in this process what it is handed, when the test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from milepost import Job, Jobs, Retry, Run
from milepost.core.errors import InvalidInput, StoreUnavailable
from milepost.engines import EngineUnavailable
from milepost.stores.driving import drive
from milepost.stores.protocol import Applied, Claim, Write
from milepost.worker.application import Application
from milepost.worker.delivery import Delivery, NotDelivered, deliver
from milepost.worker.engine import Handing
from tests.waiting import until


class Here:
    """An engine that delivers a message before `hand_over` returns, as the fastest of workers would; `down`: none at all."""

    name = "here"
    lost_after = 3600.0

    def __init__(self) -> None:
        self.down = False
        self.handed: list[str] = []
        self.closed = 0

    def serve(self, app: Application, handing: Handing) -> None:
        """Nothing to make."""
        self.app = app

    def hand_over(self, job: Job) -> None:
        """Run it here and now."""
        if self.down:
            raise EngineUnavailable("no broker")
        self.handed.append(job.job_id)
        with suppress(Retry, NotDelivered):
            deliver(self.app, self, job.job_id, job.job_type)

    def stop(self, message: Any, *, hard: bool) -> str | None:
        """No means."""
        return None

    def is_exit(self, error: BaseException) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Count."""
        self.closed += 1


@pytest.fixture(params=["sqlite", "redis"])
def make_jobs(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], tuple[Jobs, Here]]]:
    """Applications on each store that several processes can share."""
    monkeypatch.setenv("MILEPOST_SWEEP", "0.1")
    if request.param == "redis":
        monkeypatch.setenv("MILEPOST_NAMESPACE", request.getfixturevalue("redis_namespace"))
    made: list[Jobs] = []

    def make() -> tuple[Jobs, Here]:
        engine = Here()
        made.append(Jobs(request.getfixturevalue(f"{request.param}_url"), engine=engine))
        return made[-1], engine

    yield make
    for jobs in made:
        jobs.close()


def ended(jobs: Jobs, job_id: str) -> Job:
    """The job when it has ended."""

    def found() -> Job | None:
        job = jobs.get_job(job_id)
        return job if job is not None and job.is_terminal else None

    job: Job = until(found)
    return job


def test_a_job_that_has_run_before_its_handing_was_noted_is_handed_over_for_its_next_attempt(
    make_jobs: Callable[[], tuple[Jobs, Here]],
) -> None:
    """The note of the first message must not count as one of the second."""
    jobs, engine = make_jobs()

    @jobs.job("twice", max_attempts=2)
    def twice(run: Run) -> int:
        if run.attempt == 1:
            raise Retry(0.5)  # pending, and not due yet, when the note is written
        return run.attempt

    job = ended(jobs, jobs.submit(twice).job_id)
    assert (job.status, job.result) == ("completed", 2)
    assert set(engine.handed) == {job.job_id}


def test_what_the_engine_did_not_take_waits_and_says_why(make_jobs: Callable[[], tuple[Jobs, Here]]) -> None:
    jobs, engine = make_jobs()

    @jobs.job("noted")
    def noted(run: Run) -> str:
        return "done"

    engine.down = True
    job_id = jobs.submit(noted).job_id
    waiting = jobs.get_job(job_id)
    assert waiting is not None
    assert (waiting.status, waiting.stalled) == ("pending", "here cannot be reached: no broker")
    engine.down = False
    job = ended(jobs, job_id)
    assert (job.result, job.stalled) == ("done", None)
    assert set(engine.handed) == {job_id}


def test_what_was_sent_is_noted_for_many_jobs_at_once_and_at_the_latest_when_the_application_closes(
    make_jobs: Callable[[], tuple[Jobs, Here]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milepost.worker.engine.NOTES_EVERY", 3600.0)
    jobs, engine = make_jobs()
    monkeypatch.setattr(engine, "hand_over", lambda job: engine.handed.append(job.job_id))

    @jobs.job("noted")
    def noted(run: Run) -> None:
        """Never run."""

    ids = [jobs.submit(noted).job_id for _ in range(3)]
    jobs.close()
    now = drive(jobs.store.now())
    for job_id in ids:
        job = jobs.get_job(job_id)
        assert job is not None
        assert int(job.record["stale"]) > now + 1_000_000_000, "its message counts as lost after an hour"
    assert engine.handed == ids


def test_a_submit_inside_of_a_job_does_not_fail_because_its_message_could_not_be_noted(
    make_jobs: Callable[[], tuple[Jobs, Here]], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, engine = make_jobs()

    @jobs.job("noted")
    def noted(run: Run) -> str:
        return "done"

    handing = jobs.handing
    assert handing is not None
    handing.rest()  # as in a process that runs the code of a job

    class Away:
        async def apply(self, writes: Sequence[Write]) -> Applied:
            raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(handing, "_blocking", Away)
        job_id = jobs.submit(noted).job_id
    assert engine.handed == [job_id]
    assert handing.has_notes
    handing.write_notes()
    assert not handing.has_notes
    assert ended(jobs, job_id).result == "done"


def test_a_result_that_only_the_engine_can_carry_is_text_in_the_record(
    make_jobs: Callable[[], tuple[Jobs, Here]],
) -> None:
    jobs, engine = make_jobs()

    @jobs.job("noted")
    def noted(run: Run) -> None:
        """Run by the test."""

    engine.down = True
    texts, refused = jobs.submit(noted).job_id, jobs.submit(noted).job_id
    assert Delivery(jobs, engine, texts, as_text=True).execute(lambda run: 7j) == 7j
    assert Delivery(jobs, engine, refused).execute(lambda run: 7j) == 7j
    kept, failed = jobs.get_job(texts), jobs.get_job(refused)
    assert kept is not None
    assert failed is not None
    assert (kept.status, kept.result) == ("completed", "7j")
    assert failed.failure is not None
    assert (failed.status, failed.failure.kind) == ("failed", "not_serialisable")


def test_an_engine_or_a_store_that_is_away_when_code_goes_on_too_long_is_asked_again(
    make_jobs: Callable[[], tuple[Jobs, Here]], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, engine = make_jobs()
    monkeypatch.setattr(jobs._face, "settings", replace(jobs.settings, grace=0.05))

    @jobs.job("deaf", timeout=0.1)
    def deaf(run: Run) -> None:
        """Run by the test."""

    engine.down = True
    job_id = jobs.submit(deaf).job_id
    delivery = Delivery(jobs._face, engine, job_id)
    asked: list[bool] = []
    told = threading.Event()
    apply = delivery.pulse.store.apply
    lost: list[str] = []

    async def away_once(writes: Sequence[Write], claim: Claim | None = None) -> Applied:
        if not lost and writes[-1].change.shape.name == "fail":
            lost.append(writes[-1].job_id)
            raise StoreUnavailable("away")
        return await apply(writes, claim)

    def stop(message: Any, *, hard: bool) -> str | None:
        asked.append(hard)
        if len(asked) == 1:
            raise EngineUnavailable("no broker")
        if hard:
            told.set()
        return "by force"

    monkeypatch.setattr(delivery.pulse.store, "apply", away_once)
    monkeypatch.setattr(engine, "stop", stop)

    def code(run: Run) -> None:
        assert told.wait(30)
        until(lambda: (job := jobs.get_job(job_id)) is not None and job.is_terminal)

    delivery.execute(code)
    job = jobs.get_job(job_id)
    assert job is not None
    assert job.failure is not None
    assert (lost, job.failure.kind) == ([job_id], "timeout")
    assert asked == [False, False, True]


def test_an_application_that_closes_closes_its_engine(make_jobs: Callable[[], tuple[Jobs, Here]]) -> None:
    jobs, engine = make_jobs()
    jobs.close()
    assert engine.closed == 1


def test_a_store_in_memory_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot see a store in memory"):
        Jobs("memory://", engine=Here())
