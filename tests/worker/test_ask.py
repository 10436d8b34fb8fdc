"""A job that asks is suspended until a person answers, and gets the answer in every later start."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Literal

import pytest

from milepost import (
    AlreadyAnsweredError,
    AsyncJobManager,
    AsyncRun,
    IllegalTransitionError,
    InvalidInputError,
    Job,
    JobNotFoundError,
    Jobs,
    QuestionExpiredError,
    RejectedError,
    Run,
    Secret,
)
from milepost.stores.sync_bridge import run_sync
from milepost.testing import fake_async_run, fake_run
from tests.waiting import PATIENCE, current, until
from tests.worker import asking

pytestmark = pytest.mark.timing


@dataclasses.dataclass
class Approval:
    """What a person answers."""

    approved: bool
    note: str = ""


SEGMENTS: list[int] = []


def publish(run: Run) -> Any:
    SEGMENTS.append(run.attempt)
    ok = run.ask("publish", "Publish the report?", Approval)
    return [type(ok).__name__, ok.approved, ok.note]


async def apublish(run: AsyncRun) -> Any:
    SEGMENTS.append(run.attempt)
    ok = await run.ask("publish", "Publish the report?", Approval)
    return [type(ok).__name__, ok.approved, ok.note]


def waiting(jobs: Jobs, job_id: str) -> Job:
    """Return a job as soon as it waits for an answer."""
    until(lambda: "held" in current(jobs, job_id).record)
    return current(jobs, job_id)


def is_over(jobs: Jobs, job_id: str) -> bool:
    """Return whether the time to answer the question of a job is over, by the clock of the store."""
    expires = [one.expires_at for one in current(jobs, job_id).questions if one.expires_at]
    return bool(expires) and run_sync(jobs.store.now()) > datetime.fromisoformat(expires[0]).timestamp() * 1e6


@pytest.mark.parametrize("handler", [publish, apublish])
def test_answer_continues_the_attempt(jobs: Jobs, handler: Any) -> None:
    SEGMENTS.clear()
    jobs.job("asks")(handler)
    with jobs.run_workers(concurrency=1):
        job_id = jobs.submit("asks").job_id
        suspended = waiting(jobs, job_id)
        jobs.answer(job_id, "publish", {"approved": True, "note": "go"}, by="ana")
        job = jobs.wait(job_id, PATIENCE)
    assert (suspended.status, suspended.worker, suspended.activity) == (
        "pending",
        None,
        "Waiting for an answer to question publish",
    )
    assert (job.result, job.attempt, SEGMENTS) == (["Approval", True, "go"], 1, [1, 1])
    (question,) = job.questions
    assert (question.state, question.prompt, question.answered_by) == ("answered", "Publish the report?", "ana")
    events = {event.kind: event.data for event in jobs.events(job_id)}
    assert events["asked"] == {"key": "publish", "prompt": "Publish the report?", "expires_at": None}
    assert events["answered"] == {"key": "publish", "by": "ana"}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"approved": "yes"}, "approved: 'yes' is not true or false"),
        ({}, "approved: is missing"),
        (True, "value: True is not an object"),
        ("x" * 70_000, "value: "),
    ],
)
def test_answer_that_does_not_fit_is_refused_with_its_field(jobs: Jobs, value: Any, problem: str) -> None:
    jobs.job("asks")(publish)
    with jobs.run_workers(concurrency=1):
        job_id = jobs.submit("asks").job_id
        version = waiting(jobs, job_id).version
    with pytest.raises(InvalidInputError) as refused:
        jobs.answer(job_id, "publish", value)
    assert str(refused.value).startswith(problem)
    assert current(jobs, job_id).version == version


def test_second_answer_is_refused_with_who_and_when(jobs: Jobs) -> None:
    jobs.job("asks")(publish)
    job_id = jobs.submit("asks").job_id
    with ThreadPoolExecutor(8) as threads, jobs.run_workers(concurrency=1):
        waiting(jobs, job_id)
        calls = [
            threads.submit(jobs.answer, job_id, "publish", {"approved": True, "note": str(n)}, by=f"user{n}")
            for n in range(8)
        ]
        errors = [call.exception() for call in calls]
        job = jobs.wait(job_id, PATIENCE)
    assert errors.count(None) == 1
    winner = errors.index(None)
    assert job.result == ["Approval", True, str(winner)]
    with pytest.raises(AlreadyAnsweredError) as late:
        jobs.answer(job_id, "publish", {"approved": False})  # the job has ended
    for error in (*(error for error in errors if error is not None), late.value):
        assert isinstance(error, AlreadyAnsweredError)
        assert str(error) == f"question 'publish' was answered by user{winner} at {job.questions[0].answered_at}"
    with pytest.raises(IllegalTransitionError, match="Cannot answer job with status completed"):
        jobs.answer(job_id, "other", True)


def test_answer_before_the_question_is_checked_when_it_is_asked(jobs: Jobs) -> None:
    SEGMENTS.clear()
    jobs.job("asks")(publish)
    good, bad = jobs.enqueue("asks").job_id, jobs.enqueue("asks").job_id
    jobs.answer(good, "publish", {"approved": False}, by="ana")
    jobs.answer(bad, "publish", "of course", by="bob")
    with pytest.raises(AlreadyAnsweredError, match="answered by ana at"):
        jobs.answer(good, "publish", {"approved": True})
    with jobs.run_workers(concurrency=1):
        assert jobs.wait(good, PATIENCE).result == ["Approval", False, ""]
        assert waiting(jobs, bad).questions[0].state == "open"
        jobs.answer(bad, "publish", {"approved": True})
        assert jobs.wait(bad, PATIENCE).result == ["Approval", True, ""]
    assert "asked" not in [event.kind for event in jobs.events(good)]
    lines = [line["text"] for event in jobs.events(bad) if event.kind == "log" for line in event.data["lines"]]
    assert "question 'publish': the answer of bob does not fit: value: 'of course' is not an object" in lines


def test_answers_to_questions_not_asked_are_limited(jobs: Jobs) -> None:
    job_id = jobs.enqueue("later").job_id
    for number in range(16):
        jobs.answer(job_id, f"key{number}", number)
    with pytest.raises(RejectedError, match="keeps at most 16 such answers"):
        jobs.answer(job_id, "one more", 1)


def test_expired_question_has_its_default_or_fails(jobs: Jobs) -> None:
    @jobs.job
    def defaults(run: Run) -> Any:
        ok = run.ask("publish", "Publish?", Approval, expires=0.2, default=Approval(approved=False))
        run.sleep("nap", 0.05)
        return dataclasses.asdict(ok)

    @jobs.job
    def insists(run: Run) -> Any:
        return run.ask("publish", "Publish?", Approval, expires=0.2)

    with jobs.run_workers(concurrency=2):
        first, second = jobs.submit("defaults").job_id, jobs.submit("insists").job_id
        default, failed = jobs.wait(first, PATIENCE), jobs.wait(second, PATIENCE)
    assert default.result == {"approved": False, "note": ""}
    assert [one.state for one in default.questions] == ["default"]
    assert failed.error is not None
    assert failed.error.startswith("question 'publish' expired at ")


def test_answer_after_the_deadline_is_refused(jobs: Jobs) -> None:
    @jobs.job
    def insists(run: Run) -> Any:
        return run.ask("publish", "Publish?", expires=0.3)

    with jobs.run_workers(concurrency=1):
        job_id = jobs.submit("insists").job_id
        until(lambda: is_over(jobs, job_id))
        with pytest.raises((QuestionExpiredError, IllegalTransitionError)):
            jobs.answer(job_id, "publish", {"late": True})
        assert jobs.wait(job_id, PATIENCE).status == "failed"


def test_answers_while_no_process_runs(jobs: Jobs) -> None:
    """The job is answered, or expires, when its workers are gone; the next worker continues it."""
    SEGMENTS.clear()
    jobs.job("asks")(publish)

    is_paused = threading.Event()

    @jobs.job
    def expires(run: Run) -> Any:
        assert is_paused.wait(PATIENCE)
        return run.ask("publish", "Publish?", bool, expires=0.3, default=False)

    with jobs.run_workers(concurrency=2):  # a submit outside would start a worker of the memory store
        answered, silent = jobs.submit("asks").job_id, jobs.submit("expires").job_id
        waiting(jobs, answered)
        until(lambda: current(jobs, silent).status == "running")
        jobs.set_limit("expires", paused=True)  # else this worker continues it, if the test comes to the next line late
        is_paused.set()
        waiting(jobs, silent)
    jobs.set_limit("expires")
    jobs.answer(answered, "publish", {"approved": True})
    until(lambda: is_over(jobs, silent))
    with pytest.raises(QuestionExpiredError, match="question 'publish' expired at"):
        jobs.answer(silent, "publish", True)
    with jobs.run_workers(concurrency=2):
        assert jobs.wait(answered, PATIENCE).result == ["Approval", True, ""]
        assert jobs.wait(silent, PATIENCE).result is False
    assert SEGMENTS == [1, 1]


def test_changed_question_is_refused(jobs: Jobs) -> None:
    prompts = ["Publish?", "Publish it?"]

    @jobs.job
    def asks(run: Run) -> Any:
        return run.ask("publish", prompts.pop(0), bool)

    with jobs.run_workers(concurrency=1):
        job_id = jobs.submit("asks").job_id
        waiting(jobs, job_id)
        jobs.answer(job_id, "publish", True)
        job = jobs.wait(job_id, PATIENCE)
    assert job.error is not None
    assert "question 'publish': was asked with the prompt 'Publish?', now with 'Publish it?'" in job.error


def test_retry_from_start_asks_again(jobs: Jobs) -> None:
    jobs.job("asks")(publish)
    with jobs.run_workers(concurrency=1):
        job_id = jobs.submit("asks").job_id
        waiting(jobs, job_id)
        jobs.cancel_job(job_id)
        with pytest.raises(IllegalTransitionError, match="Cannot answer job with status cancelled"):
            jobs.answer(job_id, "publish", {"approved": True})
        jobs.retry_job(job_id)
        jobs.answer(job_id, "publish", {"approved": True})
        assert jobs.wait(job_id, PATIENCE).status == "completed"
    with pytest.raises(JobNotFoundError):
        jobs.answer("unknown", "publish", 1)


@pytest.mark.parametrize("job_type", ["asks.child", "aasks.child"])
def test_child_process_asks(jobs: Jobs, job_type: str) -> None:
    for handler in (asking.asks, asking.aasks):
        jobs.handlers.add(handler)
    with jobs.run_workers(concurrency=1):
        job_id = jobs.submit(job_type).job_id
        waiting(jobs, job_id)
        jobs.answer(job_id, "color", "green")
        assert jobs.wait(job_id, PATIENCE).result == ["green", False]


def ask_both(run: Run) -> Any:
    SEGMENTS.append(run.attempt)
    return run.ask_all({"size": ("Which size?", Literal["S", "L"]), "publish": ("Publish it?", bool)})


async def aask_both(run: AsyncRun) -> Any:
    SEGMENTS.append(run.attempt)
    return await run.ask_all({"size": ("Which size?", Literal["S", "L"]), "publish": ("Publish it?", bool)})


@pytest.mark.parametrize("handler", [ask_both, aask_both])
@pytest.mark.parametrize("order", [("size", "publish"), ("publish", "size")])
def test_questions_asked_together_are_answered_in_any_order(jobs: Jobs, handler: Any, order: tuple[str, str]) -> None:
    SEGMENTS.clear()
    jobs.job("asks")(handler)
    answers = {"size": "L", "publish": True}
    with jobs.run_workers(concurrency=1):
        job_id = jobs.submit("asks").job_id
        assert [(one.key, one.state) for one in waiting(jobs, job_id).questions] == [
            ("size", "open"),
            ("publish", "open"),
        ]
        jobs.answer(job_id, order[0], answers[order[0]])
        until(lambda: "held" in current(jobs, job_id).record)
        assert [one.key for one in current(jobs, job_id).questions if one.state == "open"] == [order[1]]
        jobs.answer(job_id, order[1], answers[order[1]])
        job = jobs.wait(job_id, PATIENCE)
    assert job.result == answers
    assert list(job.result) == ["size", "publish"], "in the order of the questions"
    assert (job.attempt, len(SEGMENTS)) == (1, 2 if order == ("size", "publish") else 3)


def test_unanswered_one_of_several_questions_expires(jobs: Jobs) -> None:
    @jobs.job
    def asks(run: Run) -> Any:
        return run.ask_all({"size": ("Which size?", str), "publish": ("Publish it?", bool)}, expires=0.2)

    job_id = jobs.enqueue("asks").job_id
    jobs.answer(job_id, "publish", True)
    with jobs.run_workers(concurrency=1):
        job = jobs.wait(job_id, PATIENCE)
    assert {one.key: one.state for one in job.questions} == {"size": "expired", "publish": "answered"}
    assert job.error is not None
    assert job.error.startswith("question 'size' expired at ")


def test_child_process_asks_several_questions(jobs: Jobs) -> None:
    jobs.handlers.add(asking.asks_all)
    with jobs.run_workers(concurrency=1):
        job_id = jobs.submit("asks_all.child").job_id
        waiting(jobs, job_id)
        jobs.answer(job_id, "color", "green")
        jobs.answer(job_id, "size", 3)
        assert jobs.wait(job_id, PATIENCE).result == ["green", 3]


async def test_tracked_async_block_waits_in_place() -> None:
    manager = AsyncJobManager("memory://")
    async with manager.track("asks") as run:
        asyncio.get_running_loop().call_later(
            0.1, lambda: answers.append(asyncio.ensure_future(manager.answer(run.job_id, "publish", True)))
        )
        answers: list[Any] = []
        assert await run.ask("publish", "Publish?", bool) is True
        await answers[0]


def test_ask_refuses_what_it_cannot_keep() -> None:
    run = fake_run()
    assert run.ask("a", "A?", expires=1, default=None) is None
    with pytest.raises(InvalidInputError, match="key: 'a' was used twice"):
        run.ask("a", "A?")
    for given, problem in (
        ({"prompt": " "}, "prompt: ' ' must be a text"),
        ({"prompt": "x" * 9000}, "prompt: 9000 bytes, the limit is 8192"),
        ({"schema": Secret}, "schema: an answer cannot be secret"),
        ({"schema": threading.Thread}, "schema: Thread is not supported"),
        ({"schema": {"type": "strng"}}, "schema.type: 'strng' is not one of string, boolean,"),
        ({"schema": {"type": ["null", 5]}}, "schema.type: 5 is not one of string"),
        ({"schema": {"properties": {"a": "string"}}}, "schema.properties.a: 'string' is not a JSON schema; use a dict"),
        ({"schema": {"items": {"anyOf": []}}}, "schema.items.anyOf: [] must be a list with at least one item"),
        ({"schema": {"additionalProperties": 1}}, "schema.additionalProperties: 1 is not a JSON schema"),
        ({"schema": {"$ref": "#/$defs/A", "$defs": {"B": {}}}}, "schema.$ref: '#/$defs/A' is not in $defs"),
        ({"schema": {"type": "string", "pattern": "("}}, "schema.pattern: '(' is no bound of a value"),
        ({"schema": {"type": "integer", "minimum": "1"}}, "schema.minimum: '1' is no bound of a value"),
        ({"schema": bool, "default": "no", "expires": 1}, "default: 'no' is not true or false"),
        ({"default": 1}, "default: is used when the question expires"),
        ({"expires": "soon"}, "expires: "),
    ):
        with pytest.raises(InvalidInputError) as refused:
            run.ask(**{"key": "b", "prompt": "B?", **given})
        assert str(refused.value).startswith(problem)


async def test_fake_run_answers() -> None:
    run = fake_async_run(answers={"publish": {"approved": True}, "size": "L"})
    assert await run.ask("publish", "Publish?", Approval) == Approval(True)
    assert await run.ask("size", "Size?", Literal["S", "L"]) == "L"
    assert await run.ask("silent", "Anyone?", bool, expires="2d", default=False) is False
    again = run.next_attempt()
    assert await again.ask("silent", "Anyone?", bool, expires="2d", default=True) is False
    with pytest.raises(InvalidInputError, match="answers: no answer to 'other'"):
        await again.ask("other", "Other?")
    assert (run.asked, again.asked) == (["silent"], ["other"])


def test_fake_run_answers_several_questions() -> None:
    questions = {"publish": ("Publish?", Approval), "size": ("Size?", str)}
    run = fake_run(answers={"publish": {"approved": True}, "size": "L"})
    assert run.ask_all(questions) == {"publish": Approval(True), "size": "L"}
    assert fake_run().ask_all({}) == {}
    silent = fake_run()
    with pytest.raises(InvalidInputError, match="answers: no answer to 'size'"):
        silent.ask_all(questions)
    assert silent.asked == ["publish", "size"]
    with pytest.raises(InvalidInputError, match="questions: 'size': must be a tuple of the prompt and the type"):
        fake_run().ask_all({"size": "Size?"})  # type: ignore[dict-item]
