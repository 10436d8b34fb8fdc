"""Calls the hooks of a job type, `on_completed` and `on_failed`, after the store has accepted the end of a job.

A hook never changes the end: its errors are logged. Each is called at most once for an end, and not at all if the process
dies before.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from milepost.core.errors import InvalidInputError
from milepost.core.job import Job, JobStatus
from milepost.stores.protocol import WriteResult
from milepost.worker.event_loop import ThreadPool, run_in_new_loop

log = logging.getLogger("milepost.worker")

Hook = Callable[[Job], Any]


class EndHooks:
    """The hooks of one job type. `on_cancelled` is called when the code of a cancelled job has stopped."""

    def __init__(
        self, on_completed: Hook | None = None, on_failed: Hook | None = None, on_cancelled: Hook | None = None
    ) -> None:
        hooks = {"on_completed": on_completed, "on_failed": on_failed, "on_cancelled": on_cancelled}
        for name, hook in hooks.items():
            if hook is not None:
                _check(name, hook)
        self._hooks = dict(
            zip((JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED), hooks.values(), strict=True)
        )

    def wrapped(self, wrap: Callable[[Hook], Hook]) -> EndHooks:
        """Return these hooks, each wrapped."""
        return EndHooks(*(hook and wrap(hook) for hook in self._hooks.values()))

    def of(self, reply: WriteResult, attempt: int) -> tuple[Hook, Job] | None:
        """Return the hook for the reply to the end of an attempt, and its job.

        None if there is no hook, or if the attempt is retried, or another one has begun.
        """
        job = reply.job
        if job is None or (reply.repeated and job.attempt != attempt):
            return None
        hook = self._hooks.get(job.status)
        return None if hook is None else (hook, job)

    def call(self, reply: WriteResult, attempt: int) -> None:
        """Call the hook in this thread, which has no event loop; an async one in a loop of its own."""
        found = self.of(reply, attempt)
        if found is None:
            return
        hook, job = found
        try:
            answer = hook(job)
            if inspect.isawaitable(answer):
                run_in_new_loop(_awaited(answer))
        except BaseException:  # noqa: BLE001 - it is logged with its traceback
            _log_error(hook, job)

    async def acall(self, reply: WriteResult, attempt: int) -> None:
        """Call the hook in this event loop, a sync one in a thread."""
        found = self.of(reply, attempt)
        if found is not None:
            await _call(*found, asyncio.to_thread)


class HookCalls:
    """The calls of hooks of one worker: async hooks in its event loop, sync ones in its threads."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, threads: ThreadPool, context: contextvars.Context, limit: int
    ) -> None:
        self._loop = loop
        self._threads = threads
        self._context = context
        self._free = asyncio.Semaphore(limit)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, hooks: EndHooks, reply: WriteResult, attempt: int) -> None:
        """Call a hook in the background. Call this in the event loop."""
        found = hooks.of(reply, attempt)
        if found is None:
            return
        task = self._loop.create_task(self._when_free(*found), context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, seconds: float) -> None:
        """Wait for the running hooks, and cancel those that take longer."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            if late:
                log.warning("%d hooks of ended jobs did not return within %g s", len(late), seconds)
            for task in late:
                task.cancel()

    async def _when_free(self, hook: Hook, job: Job) -> None:
        async with self._free:
            await _call(hook, job, self._in_thread)

    async def _in_thread(self, hook: Hook, job: Job) -> Any:
        answer: asyncio.Future[Any] = self._loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            value, error = None, None
            try:
                value = context.run(hook, job)
            except BaseException as raised:  # noqa: BLE001 - raised again where it is awaited
                error = raised
            try:
                self._loop.call_soon_threadsafe(_settle, answer, value, error)
            except RuntimeError:
                log.debug("job %s: worker ended before its hook", job.job_id)

        self._threads.submit(work)
        return await answer


async def _call(hook: Hook, job: Job, in_thread: Callable[[Hook, Job], Awaitable[Any]]) -> None:
    """Call a hook; log its error."""
    try:
        answer = hook(job) if inspect.iscoroutinefunction(hook) else await in_thread(hook, job)
        if inspect.isawaitable(answer):
            await answer
    except asyncio.CancelledError:
        raise
    except BaseException:  # noqa: BLE001 - it is logged with its traceback
        _log_error(hook, job)


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


def _settle(answer: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if answer.done():  # cancelled, because the worker ends
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))


def _log_error(hook: Hook, job: Job) -> None:
    name = getattr(hook, "__qualname__", type(hook).__qualname__)
    log.exception("job %s (%s): hook %s raised; the job stays %s", job.job_id, job.job_type, name, job.status)


def _check(name: str, hook: Any) -> None:
    """Raise InvalidInputError if a hook cannot be called with one job."""
    remedy = "give a function of one parameter, the ended job"
    if not callable(hook):
        raise InvalidInputError(name, f"{hook!r:.80} is not a function; {remedy}")
    try:
        inspect.signature(hook).bind(None)
    except TypeError:
        raise InvalidInputError(name, f"{hook!r:.80} cannot be called with one argument; {remedy}") from None
    except ValueError:
        return  # a builtin without a signature
