"""Answer a question of a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from milepost.core.errors import (
    AlreadyAnsweredError,
    IllegalTransitionError,
    InvalidInputError,
    JobNotFoundError,
    QuestionExpiredError,
    RejectedError,
)
from milepost.core.job import Job
from milepost.core.serialization import from_json, from_micros, to_json, validate_key
from milepost.core.transitions import plan_answer
from milepost.core.values import Question
from milepost.manager.validation import rejection_error
from milepost.run.param_types import check_schema, plain
from milepost.run.questions import ANSWER_BYTES, micros_of, questions_of, questions_text
from milepost.run.steps import KEY_BYTES
from milepost.stores.protocol import Store, Write

MAX_EARLY = 16
"""The most answers that a job keeps for questions that were not asked yet."""


async def answer(
    store: Store, new_operation_id: Callable[[], str], job_id: str, key: str, value: Any, by: str | None
) -> Job:
    """Answer a question of a job, or keep the answer until it is asked. Raises as `AsyncJobManager.answer`."""
    validate_key(key, "key", KEY_BYTES)
    given = from_json(to_json(plain(value), "value", ANSWER_BYTES))
    while True:
        job = await store.get(job_id)
        if job is None:
            raise JobNotFoundError(job_id)
        kept = questions_of(job.record.get("questions"))
        now = await store.now()
        answered = _answered(job, kept, key, given, now, by)
        change = plan_answer(
            new_operation_id(),
            version=job.record.get("questions_version", ""),
            questions=questions_text({**kept, key: answered}),
            key=key,
            data=to_json({"key": key, "by": by}, "key"),
        )
        outcome = (await store.apply([Write(job_id, change)])).outcomes[0]
        if outcome.accepted and outcome.job is not None:
            return outcome.job
        if outcome.wait:
            raise rejection_error(outcome, job_id, "answer")
        # It has changed since it was read, or has expired: the next look tells.


def _answered(job: Job, kept: Mapping[str, Question], key: str, value: Any, now: int, by: str | None) -> Question:
    """Return the question with the answer. Raises what keeps it from being answered."""
    if job.is_terminal:
        raise IllegalTransitionError(f"Cannot answer job with status {job.status}", job=job)
    if job.run_by == "manual":
        raise IllegalTransitionError(
            f"Cannot answer job {job.job_id}: it is run by its caller and asks nothing", job=job
        )
    stamp = from_micros(now).isoformat()
    given: dict[str, Any] = {"answer": value, "answered_at": stamp, "answered_by": by}
    question = kept.get(key)
    if question is None:
        if sum(one.state == "early" for one in kept.values()) >= MAX_EARLY:
            raise RejectedError(
                f"key: {key!r:.80} was not asked yet, and job {job.job_id} keeps at most {MAX_EARLY} such answers",
                job=job,
            )
        return Question(key, state="early", **given)
    if question.state in ("early", "answered"):
        who = f" by {question.answered_by}" if question.answered_by else ""
        raise AlreadyAnsweredError(f"question {key!r:.80} was answered{who} at {question.answered_at}", job=job)
    expires = micros_of(question.expires_at)
    if question.state != "open" or (expires is not None and expires <= now):
        raise QuestionExpiredError(f"question {key!r:.80} expired at {question.expires_at}", job=job)
    try:
        check_schema(value, question.json_schema or {})
    except InvalidInputError as misfit:
        raise InvalidInputError(misfit.field or "value", misfit.problem) from None
    return replace(question, state="answered", **given)
