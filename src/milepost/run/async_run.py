"""The Run of async code: a type checker sees which of its calls must be awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar, TypeVarTuple, overload

from milepost.core.serialization import Duration
from milepost.run.child_mixin import POLL_INTERVAL, AsyncChildren
from milepost.run.children import ChildJobs, OnChildError, refuse_join
from milepost.run.questions import NO_DEFAULT, Ask, asks_of, open_all
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
        if self._children is not None:
            await asyncio.to_thread(self._children.finish)
        await self._checkpoint_writer.afinish_within(self, result, using)
        return result

    def _flush_full(self, jobs: ChildJobs) -> None:
        jobs.flush_in_thread()

    def join(self, *, errors: OnChildError = "raise") -> Coroutine[Any, Any, AsyncChildren]:  # type: ignore[override] # likewise
        """Wait until no child is open, and return the children, as `Run.join` does."""
        refuse_join(self, errors)
        return self._awaited("join", self._join(errors))

    async def _join(self, errors: OnChildError) -> AsyncChildren:
        refuse_join(self, errors)  # once more: it may be awaited in another task than the one that made it
        jobs, since = ChildJobs.of(self), time.monotonic()
        await asyncio.to_thread(jobs.flush)
        while await asyncio.to_thread(jobs.must_wait, since, time.monotonic()):
            await self._await_in_place(POLL_INTERVAL)
        counts = await asyncio.to_thread(jobs.counts)
        if errors == "raise":
            await asyncio.to_thread(jobs.check, counts)
        return AsyncChildren(jobs, counts)

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
        return await self._await_answer_of(Ask(self, key, prompt, schema, expires, default))

    def ask_all(  # type: ignore[override] # likewise
        self, questions: Mapping[str, tuple[str, Any]], *, expires: Duration | None = None
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        """Ask several questions at once, as `Run.ask_all` does."""
        self._refuse_fork("ask_all")
        return self._awaited("ask_all", self._ask_all(questions, expires))

    async def _ask_all(self, questions: Mapping[str, tuple[str, Any]], expires: Duration | None) -> dict[str, Any]:
        asks = asks_of(self, questions, expires)
        await asyncio.to_thread(open_all, asks)
        answers = {ask.key: await self._await_answer_of(ask) for ask in reversed(asks)}
        return {key: answers[key] for key in questions}

    async def _await_answer_of(self, ask: Ask) -> Any:
        while (answer := await asyncio.to_thread(ask.answer)) is None:
            await self._await_answer(ask)
        return answer[0]
