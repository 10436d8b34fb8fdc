"""Large parameters, checkpoints and results through a worker, on every store and with every way to run a handler."""

from __future__ import annotations

import threading

import pytest

from milepost import Jobs, Retry, Run
from milepost.core.errors import StoreUnavailableError
from milepost.core.job import Job
from milepost.core.values import LargeValue
from tests.worker import application
from tests.worker.conftest import MakeJobs
from tests.worker.job_assertions import ended

pytestmark = pytest.mark.timing

TEXT = "x" * 100_000


@pytest.mark.parametrize("is_async", [False, True])
def test_handler_gets_large_params_and_its_checkpoint(jobs: Jobs, is_async: bool) -> None:
    seen: list[object] = []

    def work(run: Run, text: str) -> dict[str, str]:
        seen.append((text, run.last_checkpoint))
        if run.attempt == 1:
            run.checkpoint({"at": TEXT})
            raise Retry("again", delay=0)
        return {"text": text}

    async def awork(run: Run, text: str) -> dict[str, str]:
        return work(run, text)

    jobs.job("large", max_attempts=2)(awork if is_async else work)
    with jobs.run_workers():
        job = ended(jobs, jobs.submit("large", {"text": TEXT}))
    assert seen == [(TEXT, None), (TEXT, {"at": TEXT})]
    assert (job.status, job.result, job.params) == ("completed", {"text": TEXT}, {"text": TEXT})
    (listed,) = jobs.list_jobs()
    assert (type(listed.result), type(listed.params)) == (LargeValue, LargeValue)


def test_isolated_handler_gets_large_params(make_jobs: MakeJobs) -> None:
    jobs = make_jobs(grace=2.0)
    jobs.handlers.add(application.isolated_length)
    with jobs.run_workers():
        assert ended(jobs, jobs.submit("isolated-length", {"text": TEXT})).result == len(TEXT)


def test_claim_is_repeated_when_its_values_cannot_be_read(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = [True]
    kind = type(jobs.store)
    get = kind.get

    async def get_later(self: object, job_id: str) -> Job | None:
        if fails and threading.current_thread() is not threading.main_thread():  # the worker has a thread of its own
            fails.pop()
            raise StoreUnavailableError("no answer")
        return await get(self, job_id)  # type: ignore[arg-type]

    @jobs.job("large")
    def large(run: Run, text: str) -> int:
        return len(text)

    monkeypatch.setattr(kind, "get", get_later)
    submitted = jobs.submit(large, text=TEXT)
    with jobs.run_workers():
        job = ended(jobs, submitted)
    assert (job.status, job.result, job.attempt, fails) == ("completed", len(TEXT), 1, [])
