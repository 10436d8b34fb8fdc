"""Answers before the question, during it, after it has expired, twice at once, and while no process runs: on every store, through
each of the ways to answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from milepost import AsyncJobs, AsyncRun, Jobs, RejectedError, Run, Settings
from milepost.core.errors import InvalidInputError
from milepost.stores.protocol import Store
from milepost.stores.sync_bridge import run_sync
from tests.waiting import PATIENCE, current, until
from tests.web.conftest import client_of

pytestmark = pytest.mark.timing

Answer = tuple[str, str, Any]
"""An id, a key and a value."""
Face = Callable[[Jobs, list[Answer]], list[str]]
"""Gives some answers at once, and returns the names of the errors, empty for one that was accepted."""


def by_threads(jobs: Jobs, answers: list[Answer]) -> list[str]:
    def one(answer: Answer) -> str:
        try:
            jobs.answer(*answer)
        except (RejectedError, InvalidInputError) as error:
            return type(error).__name__
        return ""

    with ThreadPoolExecutor(len(answers)) as threads:
        return list(threads.map(one, answers))


def in_one_loop(jobs: Jobs, answers: list[Answer], send: Callable[[AsyncJobs, Answer], Awaitable[str]]) -> list[str]:
    async def all_of_them() -> list[str]:
        apart = AsyncJobs(jobs.store.with_blocking(blocking=False))
        try:
            return list(await asyncio.gather(*(send(apart, answer) for answer in answers)))
        finally:
            await apart.close()

    return asyncio.run(all_of_them())


def by_tasks(jobs: Jobs, answers: list[Answer]) -> list[str]:
    async def send(apart: AsyncJobs, answer: Answer) -> str:
        try:
            await apart.answer(*answer)
        except (RejectedError, InvalidInputError) as error:
            return type(error).__name__
        return ""

    return in_one_loop(jobs, answers, send)


def by_requests(jobs: Jobs, answers: list[Answer]) -> list[str]:
    async def send(apart: AsyncJobs, answer: Answer) -> str:
        job_id, key, value = answer
        async with client_of(apart) as web:
            given = await web.post(f"/api/jobs/{job_id}/answers", json={"key": key, "value": value})
        if given.status_code == 422:
            return "InvalidInputError"
        assert given.status_code in (200, 409), given.text
        return str(given.json()["error"]) if given.status_code == 409 else ""

    return in_one_loop(jobs, answers, send)


@pytest.fixture(params=["handler", "async handler"])
def jobs(every_store: Store, request: pytest.FixtureRequest) -> Iterator[Jobs]:
    jobs = Jobs(every_store, options=Settings(heartbeat=0.05))

    def publish(run: Run, expires: float = 3600.0) -> str:
        return str(run.ask("publish", "Publish?", bool, expires=expires, default=False))

    async def apublish(run: AsyncRun, expires: float = 3600.0) -> str:
        return str(await run.ask("publish", "Publish?", bool, expires=expires, default=False))

    jobs.job("publish")(publish if request.param == "handler" else apublish)
    jobs.worker()  # so that a store in memory starts no worker by itself
    yield jobs
    jobs.close()


def asked(jobs: Jobs, **params: Any) -> str:
    """Return the id of a job that waits for its answer. No worker is left."""
    job_id = jobs.submit("publish", params).job_id
    with jobs.run_workers(concurrency=1):
        until(lambda: "held" in current(jobs, job_id).record)
    return job_id


def result(jobs: Jobs, job_id: str) -> Any:
    with jobs.run_workers(concurrency=1):
        job = jobs.wait(job_id, PATIENCE)
    assert job.error is None
    return job.result


@pytest.mark.parametrize("face", [by_threads, by_tasks, by_requests])
def test_answers_are_exact(jobs: Jobs, face: Face) -> None:
    early = jobs.submit("publish", {}).job_id
    assert face(jobs, [(early, "publish", True)]) == [""]
    assert face(jobs, [(early, "publish", False)]) == ["AlreadyAnsweredError"]
    assert result(jobs, early) == "True"

    open_question = asked(jobs)
    version = current(jobs, open_question).version
    assert face(jobs, [(open_question, "publish", "yes")]) == ["InvalidInputError"]
    assert current(jobs, open_question).version == version
    errors = face(jobs, [(open_question, "publish", value) for value in (True, False)])
    assert sorted(errors) == ["", "AlreadyAnsweredError"]
    assert result(jobs, open_question) == ("True" if not errors[0] else "False")
    (question,) = current(jobs, open_question).questions
    assert question.answer is not errors[0]
    assert [event.kind for event in jobs.events(open_question)].count("answered") == 1
    assert face(jobs, [(open_question, "other", True)]) == ["IllegalTransitionError"]


@pytest.mark.parametrize("face", [by_threads, by_tasks, by_requests])
def test_answer_to_an_expired_question_is_refused(jobs: Jobs, face: Face) -> None:
    job_id = asked(jobs, expires=60.0)
    (question,) = current(jobs, job_id).questions
    assert question.expires_at is not None
    assert face(jobs, [(job_id, "publish", True)]) == [""]
    assert result(jobs, job_id) == "True"

    late = jobs.submit("publish", {"expires": 0.2}).job_id
    with jobs.run_workers(concurrency=1):
        until(lambda: current(jobs, late).questions)
    expires = current(jobs, late).questions[0].expires_at
    assert expires is not None
    until(lambda: run_sync(jobs.store.now()) > datetime.fromisoformat(expires).timestamp() * 1e6)
    (error,) = face(jobs, [(late, "publish", True)])
    assert error == ("QuestionExpiredError" if not current(jobs, late).is_terminal else "IllegalTransitionError")
    assert result(jobs, late) == "False"
    assert face(jobs, [(late, "publish", True)]) == ["IllegalTransitionError"]
