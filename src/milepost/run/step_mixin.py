"""`run.step`: call a function once, and keep its value for the next attempts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, cast, overload

from milepost.run.steps import OnChange, Step, current_step_key

if TYPE_CHECKING:
    from milepost.run.run import Run

R = TypeVar("R")
Args = TypeVarTuple("Args")


class StepMixin:
    """Adds `step` and `step_key` to a Run."""

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
        again. An argument that has no lasting content, such as a client, is not compared. A job keeps up to 1,000 values,
        of up to 1 MiB each and 8 MiB together. A cancellation point.
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
