"""The methods of a manager for jobs that wait for a user: answer a question, pause, resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from milepost.core.errors import (
    AlreadyAnsweredError,
    IllegalTransitionError,
    InvalidInputError,
    QuestionExpiredError,
    RejectedError,
)
from milepost.core.job import Job
from milepost.core.serialization import from_json, from_micros, known_id, single_line, to_json, validate_key
from milepost.core.transitions import plan_answer, plan_cancel, plan_pause, plan_resume_paused
from milepost.core.transitions.change import Change
from milepost.core.values import Question
from milepost.manager.validation import rejection_error
from milepost.run.budget_question import KEY, raised_budget, stops_job, wake_below
from milepost.run.param_types import check_schema, plain
from milepost.run.questions import ANSWER_BYTES, micros_of, questions_of, questions_text
from milepost.run.steps import KEY_BYTES
from milepost.run.usage import ASKS
from milepost.stores.protocol import Store, Write
from milepost.stores.query import existing_job

MAX_EARLY = 16
"""The most answers that a job keeps for questions that were not asked yet."""


class AnswerAndPauseMethods:
    """Adds `answer`, `pause` and `resume` to a manager."""

    store: Store
    _new_operation_id: Callable[[], str]

    async def answer(self, job_id: str, key: str, value: Any, *, by: str | None = None) -> Job:
        """Answer the question that a job asked under this key (`run.ask`) and return the job, which continues.

        `value` is JSON that fits the question, of at most 64 KiB; `by` is who answers. A job keeps up to 16 answers to
        questions that it has not asked yet. An answer that adds nothing to a spent budget cancels the job, which is
        returned. Raises JobNotFoundError, AlreadyAnsweredError with who and when, QuestionExpiredError,
        IllegalTransitionError if the job has ended without an answer to the question, and InvalidInputError with the
        field that does not fit.
        """
        who = None if by is None else single_line(by)
        known_id(job_id)
        validate_key(key, "key", KEY_BYTES)
        given = from_json(to_json(plain(value), "value", ANSWER_BYTES))
        while True:
            job = await existing_job(self.store, job_id)
            kept = questions_of(job.record.get("questions"))
            now = await self.store.now()
            answered = _answered(job, kept, key, given, now, who)
            budget = None
            if answered.budget is not None and not stops_job(given):
                budget = await raised_budget(self.store, job, given)
            if answered.budget is not None and budget is None:
                why = f"{key}: the budget was not raised"
                change = plan_cancel(self._new_operation_id(), by=who, why=why, message="Job cancelled by user")
            else:
                change = plan_answer(
                    self._new_operation_id(),
                    version=job.record.get("questions_version", ""),
                    questions=questions_text({**kept, key: answered}),
                    key=key,
                    data=to_json({"key": key, "by": who}, "key"),
                    budget=budget,
                )
            outcome = (await self.store.apply([Write(job_id, change)])).outcomes[0]
            if outcome.accepted and outcome.job is not None:
                if budget is not None:
                    await wake_below(self.store, job_id, key, who)
                return outcome.job
            if outcome.wait:
                raise rejection_error(outcome, job_id, "answer")
            # It has changed since it was read, or has expired: the next look tells.

    async def pause(self, job_id: str, *, by: str | None = None) -> Job:
        """Suspend a job of a worker until `resume`, in the same attempt, and return it. `by` is who pauses it.

        The job is pending when this returns. Running code is stopped as by a cancel, at its next cancellation point; what
        `waiting_for` says under ``resume`` tells what a resume repeats. A cancel and a delete work on a paused job. Raises
        JobNotFoundError, and IllegalTransitionError if the job has ended, is paused, or is not run by a worker.
        """
        who = None if by is None else single_line(by)
        change = plan_pause(self._new_operation_id(), by=who, data=to_json({"by": who}, "by"))
        return await self._pause_or_resume(known_id(job_id), change, "pause")

    async def resume(self, job_id: str, *, by: str | None = None) -> Job:
        """Let a paused job continue in the same attempt, and return it. It waits again for what it waited for before.

        Raises JobNotFoundError, and IllegalTransitionError if the job is not paused.
        """
        who = None if by is None else single_line(by)
        change = plan_resume_paused(self._new_operation_id(), data=to_json({"by": who}, "by"))
        return await self._pause_or_resume(known_id(job_id), change, "resume")

    async def _pause_or_resume(self, job_id: str, change: Change, verb: str) -> Job:
        outcome = (await self.store.apply([Write(job_id, change)])).outcomes[0]
        job = outcome.job
        if outcome.accepted and job is not None:
            return job
        if job is None or outcome.wait or job.is_terminal:
            raise rejection_error(outcome, job_id, verb)
        if verb == "resume":
            why = "it is not paused"
        elif job.run_by not in ("worker", "external"):
            why = "it was not submitted to a worker"
        elif job.run_by == "external" and job.status == "running":
            why = "a task queue runs it; cancel it instead"
        else:
            why = "it is paused"
        raise IllegalTransitionError(f"Cannot {verb} job {job_id}: {why}", job=job)


def _answered(job: Job, kept: Mapping[str, Question], key: str, value: Any, now: int, by: str | None) -> Question:
    """Return the question with the answer. Raises what keeps it from being answered."""
    question = kept.get(key)
    if question is not None and question.state in ("early", "answered"):  # also if that has ended the job
        who = f" by {question.answered_by}" if question.answered_by else ""
        raise AlreadyAnsweredError(f"question {key!r:.80} was answered{who} at {question.answered_at}", job=job)
    if job.is_terminal:
        raise IllegalTransitionError(f"Cannot answer job with status {job.status}", job=job)
    if job.run_by == "manual":
        raise IllegalTransitionError(
            f"Cannot answer job {job.job_id}: it is run by its caller and asks nothing", job=job
        )
    stamp = from_micros(now).isoformat()
    given: dict[str, Any] = {"answer": value, "answered_at": stamp, "answered_by": by}
    if question is None:
        if key.startswith(KEY) and job.record.get("on_budget") == ASKS:
            raise RejectedError(
                f"key: {key!r:.80} was not asked yet; job {job.job_id} asks once its budget is spent", job=job
            )
        if sum(one.state == "early" for one in kept.values()) >= MAX_EARLY:
            raise RejectedError(
                f"key: {key!r:.80} was not asked yet, and job {job.job_id} keeps at most {MAX_EARLY} such answers",
                job=job,
            )
        return Question(key, state="early", **given)
    expires = micros_of(question.expires_at)
    if question.state != "open" or (expires is not None and expires <= now):
        raise QuestionExpiredError(f"question {key!r:.80} expired at {question.expires_at}", job=job)
    try:
        check_schema(value, question.json_schema or {})
    except InvalidInputError as misfit:
        raise InvalidInputError(misfit.field or "value", misfit.problem) from None
    return replace(question, state="answered", **given)
