"""The methods of a manager for jobs that wait for a user: answer a question, pause, resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from milepost.core.job import Job
from milepost.core.serialization import known_id, single_line
from milepost.manager import answers, pauses
from milepost.stores.protocol import Store


class WaitingMethods:
    """Adds `answer`, `pause` and `resume` to a manager."""

    store: Store
    _new_operation_id: Callable[[], str]

    async def answer(self, job_id: str, key: str, value: Any, *, by: str | None = None) -> Job:
        """Answer the question that a job asked under this key (`run.ask`) and return the job, which continues.

        `value` is JSON that fits the question, of at most 64 KiB; `by` is who answers. A job keeps up to 16 answers to
        questions that it has not asked yet. Raises JobNotFoundError, AlreadyAnsweredError with who and when,
        QuestionExpiredError, IllegalTransitionError if the job has ended, and InvalidInputError with the field that does
        not fit.
        """
        who = None if by is None else single_line(by)
        return await answers.answer(self.store, self._new_operation_id, known_id(job_id), key, value, who)

    async def pause(self, job_id: str, *, by: str | None = None) -> Job:
        """Suspend a job of a worker until `resume`, in the same attempt, and return it. `by` is who pauses it.

        The job is pending when this returns. Running code is stopped as by a cancel, at its next cancellation point; what
        `waiting_for` says under ``resume`` tells what a resume repeats. A cancel and a delete work on a paused job. Raises
        JobNotFoundError, and IllegalTransitionError if the job has ended, is paused, or is not run by a worker.
        """
        return await pauses.pause(self.store, self._new_operation_id(), known_id(job_id), by)

    async def resume(self, job_id: str, *, by: str | None = None) -> Job:
        """Let a paused job continue in the same attempt, and return it. It waits again for what it waited for before.

        Raises JobNotFoundError, and IllegalTransitionError if the job is not paused.
        """
        return await pauses.resume(self.store, self._new_operation_id(), known_id(job_id), by)
