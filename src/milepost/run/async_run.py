"""The Run of async code: a type checker sees which of its calls must be awaited."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple, overload

from milepost.run.run import Run
from milepost.run.steps import OnChange, Step

R = TypeVar("R")
Args = TypeVarTuple("Args")


class AsyncRun(Run):
    """One attempt at a job, as its async code sees it: ``async def import_all(run: AsyncRun)``.

    It is a `Run`, whose calls that wait for the store are awaited.
    """

    @overload  # type: ignore[override] # it is awaited, which is why this class exists
    def step(
        self,
        key: str,
        function: Callable[[*Args], Coroutine[Any, Any, R]],
        /,
        *args: *Args,
        on_change: OnChange = "raise",
    ) -> Coroutine[Any, Any, R]: ...

    @overload
    def step(
        self, key: str, function: Callable[[*Args], R], /, *args: *Args, on_change: OnChange = "raise"
    ) -> Coroutine[Any, Any, R]: ...

    def step(
        self, key: str, function: Callable[[*Args], Any], /, *args: *Args, on_change: OnChange = "raise"
    ) -> Coroutine[Any, Any, Any]:
        """Call a function and keep its value, as `Run.step` does. A function that is not async is called in a thread."""
        self._refuse_fork("step")
        return self._awaited("step", Step(self, key, function, args, on_change).acall())
