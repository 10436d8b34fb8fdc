"""The Run of async code: a type checker sees which of its calls must be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple, overload

from milepost.core.serialization import Duration
from milepost.run.questions import NO_DEFAULT, Ask
from milepost.run.run import Run
from milepost.run.steps import OnChange, Step
from milepost.run.suspension import Sleep

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

    def finish(self, result: R, *, using: object) -> Coroutine[Any, Any, R]:  # type: ignore[override] # likewise
        """Complete the job in an open async transaction of the code, as `Run.finish` does."""
        return self._awaited("finish", self._finish(result, using))

    async def _finish(self, result: R, using: object) -> R:
        self._refuse_using("finish")
        await self._checkpoint_writer.afinish_within(self, result, using)
        return result

    def sleep(self, key: str, duration: Duration) -> Coroutine[Any, Any, None]:  # type: ignore[override] # likewise
        """Wait without a worker, as `Run.sleep` does."""
        self._refuse_fork("sleep")
        return self._awaited("sleep", self._sleep(key, duration))

    async def _sleep(self, key: str, duration: Duration) -> None:
        left = await asyncio.to_thread(Sleep(self, key, duration).left)
        if left > 0:
            await self._await_in_place(left)

    @overload  # type: ignore[override] # likewise
    def ask(
        self, key: str, prompt: str, schema: type[R], *, expires: Duration | None = None, default: R = NO_DEFAULT
    ) -> Coroutine[Any, Any, R]: ...

    @overload
    def ask(
        self, key: str, prompt: str, schema: Any = None, *, expires: Duration | None = None, default: Any = NO_DEFAULT
    ) -> Coroutine[Any, Any, Any]: ...

    def ask(
        self, key: str, prompt: str, schema: Any = None, *, expires: Duration | None = None, default: Any = NO_DEFAULT
    ) -> Coroutine[Any, Any, Any]:
        """Ask a person, as `Run.ask` does."""
        self._refuse_fork("ask")
        return self._awaited("ask", self._ask(key, prompt, schema, expires, default))

    async def _ask(self, key: str, prompt: str, schema: Any, expires: Duration | None, default: Any) -> Any:
        ask = Ask(self, key, prompt, schema, expires, default)
        while (answer := await asyncio.to_thread(ask.answer)) is None:
            await self._await_answer(ask)
        return answer[0]
