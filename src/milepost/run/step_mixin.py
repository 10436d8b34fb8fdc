"""`run.step`: call a function once, and keep its value; `run.sleep` and `run.ask`: wait without a worker."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, cast, overload

from milepost.core.errors import JobSuspended
from milepost.core.serialization import Duration
from milepost.run.questions import NO_DEFAULT, Ask, asks_of, open_all
from milepost.run.repeated_work import warn_of_repeated_work
from milepost.run.steps import OnChange, Step, current_step_key
from milepost.run.suspension import Sleep

if TYPE_CHECKING:
    from milepost.run.run import Run

R = TypeVar("R")
Args = TypeVarTuple("Args")

WAIT_INTERVAL = 0.2
"""Seconds between two looks for a stop, or for an answer, while a run waits in place."""


class StepMixin:
    """Adds `step`, `step_key`, `sleep`, `ask` and `ask_all` to a Run."""

    @overload
    def step(
        self,
        key: str,
        function: Callable[[*Args], Coroutine[Any, Any, R]],
        /,
        *args: *Args,
        on_change: OnChange = "raise",
    ) -> Coroutine[Any, Any, R]: ...

    @overload
    def step(self, key: str, function: Callable[[*Args], R], /, *args: *Args, on_change: OnChange = "raise") -> R: ...

    def step(self, key: str, function: Callable[[*Args], Any], /, *args: *Args, on_change: OnChange = "raise") -> Any:
        """Call a function and keep its value under a key: ``quote = run.step("quote", fetch_quote, folder)``.

        It returns when the store has the value. A later attempt gets the kept value without a call. Await it for an
        async function. The value is always as read back: plain JSON, or the declared type of the function
        (``-> Quote``, a dataclass or a model). A value that would not be restored equal is refused.

        The function is called at least once: a process that is killed after the call and before the value is stored
        calls it again. `step_key` is an idempotency key for such a call. What the function raises is not kept.

        A key (up to 200 bytes) is used once in an attempt; add the item to it for several calls. A call with other
        arguments than those of the kept value raises InputChangedError, or with ``on_change="rerun"`` calls the function
        again. An argument that has no lasting content, such as the run or a client, is not compared. A job keeps up to 1,000
        values, of up to 1 MiB each and 8 MiB together. A cancellation point.
        """
        run = cast("Run", self)
        run._refuse_fork("step")
        step = Step(run, key, function, args, on_change)
        if not inspect.iscoroutinefunction(function):
            return step.call()
        return run._awaited("step", step.acall())

    @property
    def step_key(self) -> str:
        """Return the idempotency key of the step whose function is running, for services that take one.

        It is the same in each attempt, and another one for other arguments and after a retry from the start.
        """
        return current_step_key()

    def sleep(self, key: str, duration: Duration) -> None:
        """Wait for a time (seconds, a timedelta or text such as "6h") without a worker: ``run.sleep("cool-down", "6h")``.

        The job is suspended: the code ends here with JobSuspended (``with`` and ``finally`` run), and starts again from its
        beginning when the time has come, in the same attempt; this call then returns. The deadline is stamped by the
        store's clock at the first call, and kept under the key, which is used once in an attempt, as those of `step` are.
        Work before the call runs again, unless it is in a step, or in a loop with ``resume=True`` or `state`. The time does
        not count for the timeout.

        A tracked block and a task under `@tracked` wait in place instead. Raises InvalidInputError in another thread or
        task than the handler's own, and in functions given to `map` and `step`. A cancellation point.
        """
        run = cast("Run", self)
        run._refuse_fork("sleep")
        left = Sleep(run, key, duration).left()
        if left > 0:
            run._wait_in_place(left)

    @overload
    def ask(
        self, key: str, prompt: str, schema: type[R], *, expires: Duration | None = None, default: R = NO_DEFAULT
    ) -> R: ...

    @overload
    def ask(
        self, key: str, prompt: str, schema: Any = None, *, expires: Duration | None = None, default: Any = NO_DEFAULT
    ) -> Any: ...

    def ask(
        self, key: str, prompt: str, schema: Any = None, *, expires: Duration | None = None, default: Any = NO_DEFAULT
    ) -> Any:
        """Ask a person and return the answer: ``ok = run.ask("publish", "Publish the report?", bool, expires="2d")``.

        The job is suspended until ``answer(job_id, key, value)`` of a manager, the API, the command line or the dashboard
        gives an answer: as in `sleep`, the code ends here with JobSuspended and starts again from its beginning. The
        answer is kept under the key, which is used once in an attempt, as those of `step` are.

        `schema` is the type of the answer (a dataclass, a model, ``bool``, ``Literal["a", "b"]``, ...) or a JSON schema;
        the answer is returned as this type. An answer that does not fit is refused where it is given. After `expires`
        (seconds, a timedelta or text such as "2d", from the first call) the call returns `default`, or raises
        QuestionExpiredError. Another prompt or schema under the same key raises InputChangedError.

        A tracked block and a task under `@tracked` wait in place instead. Raises InvalidInputError in another thread or
        task than the handler's own, and in functions given to `map` and `step`. A cancellation point.
        """
        run = cast("Run", self)
        run._refuse_fork("ask")
        return self._answer_of(Ask(run, key, prompt, schema, expires, default))

    def ask_all(self, questions: Mapping[str, tuple[str, Any]], *, expires: Duration | None = None) -> dict[str, Any]:
        """Ask several questions at once and return the answers by key.

        ``run.ask_all({"legal": ("Publish it?", bool), "price": ("Which price?", float)})``: each key has the prompt and
        the type of the answer, as `ask` takes them. All are open together and may be answered in any order. The job
        continues when each has an answer. Raises QuestionExpiredError after `expires` if one has none.
        """
        run = cast("Run", self)
        run._refuse_fork("ask_all")
        asks = asks_of(run, questions, expires)
        open_all(asks)
        answers = {ask.key: self._answer_of(ask) for ask in reversed(asks)}
        return {key: answers[key] for key in questions}

    def _answer_of(self, ask: Ask) -> Any:
        while (answer := ask.answer()) is None:
            self._wait_for_answer(ask)
        return answer[0]

    def _wait_for_answer(self, ask: Ask) -> None:
        self._wait_in_place(WAIT_INTERVAL)
        ask.refresh()

    async def _await_answer(self, ask: Ask) -> None:
        await self._await_in_place(WAIT_INTERVAL)
        await asyncio.to_thread(ask.refresh)

    def _suspend(self, reason: JobSuspended, call: str) -> None:
        """Raise a suspension by a call, and let every later call of the run raise it again, until the code has returned."""
        run = cast("Run", self)
        run.check()
        warn_of_repeated_work(run, call)
        if run._children is not None:
            run._children.flush()
        run._stop_reasons.append(reason)
        for loop in list(run._loops.each.values()):
            loop.notify_stop()
        raise reason

    def _wait_in_place(self, left: float) -> None:
        end = time.monotonic() + left
        with cast("Run", self)._kept_work.spent():
            while (left := end - time.monotonic()) > 0:
                cast("Run", self).check()
                time.sleep(min(left, WAIT_INTERVAL))

    async def _await_in_place(self, left: float) -> None:
        with cast("Run", self)._kept_work.spent():
            await asyncio.sleep(left)
