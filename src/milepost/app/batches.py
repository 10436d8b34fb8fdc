"""Batches: jobs that are submitted together, with exact counts and progress, and what runs when all have ended.

A batch is a record of type `batch` and a member of its own group. It is open until its `with` block ends, so nothing that
waits for the group starts before. A closed batch ends when no member is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from milepost.core.activity import plural
from milepost.core.errors import (
    DuplicateJobError,
    IllegalTransitionError,
    InvalidInputError,
    JobCancelled,
    JobNotFoundError,
    JobTimedOut,
    MilepostError,
    RunStop,
    Snooze,
)
from milepost.core.job import Job, JobStatus
from milepost.core.options import with_awaited
from milepost.core.placement import BATCH, is_batch
from milepost.core.serialization import Duration, safe_str, single_line, validate_job_id
from milepost.core.transitions import plan_close_batch, plan_create, plan_open_batch, plan_update
from milepost.core.values import MemberCounts
from milepost.manager import descendants
from milepost.manager.validation import job_fields
from milepost.run import context
from milepost.run.crash_report import redacted
from milepost.run.suspension import of_group
from milepost.stores.protocol import Store, Write
from milepost.stores.sync_bridge import blocking, run_sync

if TYPE_CHECKING:
    from milepost.app.jobs import AsyncJobs, Target

OnError = Literal["cancel", "keep"]

STALE_AFTER = 60.0
"""Seconds without a heartbeat of the process that has a batch open, after which it is flagged as stalled."""
ALIVE_INTERVAL = 15.0


class AsyncBatch:
    """A batch of jobs in an event loop, made by `AsyncJobs.batch`: ``async with jobs.batch("import-42") as batch``.

    Without `async with` it is a handle of a batch that exists: `counts`, `wait` and `then` work at any time.
    """

    def __init__(self, jobs: AsyncJobs, name: str, labels: Mapping[str, str] | None, on_error: OnError) -> None:
        try:
            self.name = validate_job_id(name)
        except InvalidInputError as error:
            raise InvalidInputError("name", error.problem) from None
        if on_error not in ("cancel", "keep"):
            raise InvalidInputError("on_error", f"{on_error!r:.40} must be 'cancel' or 'keep'")
        self.job_id = self.name
        """The id of its record."""
        self.awaited: str = f"group:{self.name}"
        """What stands for the batch in `after`."""
        self._jobs = jobs
        self._labels = dict(labels or {})
        self._on_error = on_error
        self._opened_by: int | None = None
        self._alive: asyncio.Task[None] | None = None

    @property
    def store(self) -> Store | None:
        """Return the store of the batch; None if the batch is on a server."""
        return self._jobs.store

    async def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> Job:
        """Create a job in the batch and return it. The arguments are those of `submit`. Raises JobNotFoundError for a batch
        that was never opened.
        """
        await self._refuse_unopened()
        if isinstance(target, str):
            return await self._jobs.submit(target, *args, **{**kwargs, **self._membership(kwargs)})
        return await self._jobs.submit(target.options(**self._membership(target.options().given)), *args, **kwargs)

    async def submit_many(self, /, target: Target, params: Iterable[Mapping[str, Any]], **options: Any) -> list[str]:
        """Create many jobs of one type in the batch, and return their ids. The arguments are those of `submit_many`."""
        await self._refuse_unopened()
        given = options if isinstance(target, str) else {**target.options().given, **options}
        return await self._jobs.submit_many(target, params, **{**options, **self._membership(given)})

    async def _refuse_unopened(self) -> None:
        """Raise JobNotFoundError for a handle of a batch that does not exist: nothing would close the group of its jobs."""
        if self._opened_by is None:
            await self._record()

    def _membership(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that make a job a member, given its own. Raises InvalidInputError."""
        group = options.get("group")
        if group not in (None, self.name):
            raise InvalidInputError(
                "group", f"{group!r:.80}, but the job is submitted to the batch {self.name!r}; omit it"
            )
        labels = options.get("labels") or {}
        return {"group": self.name, "labels": {**self._labels, **labels} if isinstance(labels, Mapping) else labels}

    async def then(self, target: Target, /, *args: Any, **kwargs: Any) -> Job:
        """Create a job that starts when the batch has ended, and return it: ``submit(target.options(after=[batch]), ...)``.

        It is cancelled if a member has failed, unless it has ``on_failure="run"``.
        """
        if isinstance(target, str):
            after = with_awaited(self, kwargs.get("after"))
            return await self._jobs.submit(target, *args, **{**kwargs, "after": after})
        after = with_awaited(self, target.options().given.get("after"))
        return await self._jobs.submit(target.options(after=after), *args, **kwargs)

    async def counts(self) -> MemberCounts:
        """Return the exact numbers of members by what became of them. Raises JobNotFoundError."""
        state = await self._state()
        while True:
            (counts,) = await self._jobs.store.member_counts([self.awaited])
            before, state = state, await self._state()
            if before == state:
                counts[state] = counts.get(state, 0) - 1  # the record of the batch itself
                return MemberCounts.of(counts)

    async def _state(self) -> str:
        record = (await self._record()).record
        return "closed" if "closed" in record else record["status"] if "completed" in record else ""

    async def wait(self, timeout: Duration | None = None) -> Job:
        """Wait until the batch is closed and no member is open, and return its record: failed if a member failed.

        Raises WaitTimeoutError after `timeout`, and JobNotFoundError.
        """
        return await self._jobs.wait(self.name, timeout)

    async def _record(self) -> Job:
        job = await self._jobs.store.get(self.name)
        if job is None or job.group != self.name:
            raise JobNotFoundError(self.name, f"Batch {self.name} not found; open it in a with block")
        return job

    # --- open and close ---

    async def open(self) -> None:
        """Open the batch, or continue one that is open. Raises IllegalTransitionError for a closed one.

        `async with` does this, and closes it. A batch that nothing reports for 60 s is flagged as stalled.
        """
        jobs, new_id = self._jobs, self._jobs.runtime.ids.new_operation_id
        fields = job_fields(
            "manual", BATCH, message="Open", labels=self._labels, group=self.name, stale_after=STALE_AFTER,
            stored={"origin": jobs.manager.origin},
        )  # fmt: skip
        job = (await self._apply([Write(self.name, plan_create(fields, new_id()))]))[0].job
        if job is not None and not is_batch(job):
            raise DuplicateJobError(f"Job {self.name} already exists, and is not a batch", job=job)
        opened = (await self._apply([Write(self.name, plan_open_batch(new_id()))]))[0]
        if not opened.accepted:
            raise IllegalTransitionError(f"Batch {self.name} is closed; open one with another name", job=opened.job)
        self._opened_by = os.getpid()

    async def close(self, error: BaseException | None = None) -> None:
        """Close the batch: it accepts no more jobs, except from its running members, and ends when none is open.

        With an error it fails, and its open members are cancelled, unless it has ``on_error="keep"``. It stays open if the
        error interrupts a run that continues later or elsewhere: suspended, paused, released or snoozed, or its lease is
        lost. A batch that was closed or cancelled meanwhile stays as it is. In a process that was forked after `open`, do
        nothing: the parent closes the batch.
        """
        if self._opened_by not in (None, os.getpid()):
            return
        if error is not None and _is_interruption(error):
            return
        if error is not None and self._on_error == "cancel":
            text = redacted(f"{type(error).__name__}: {safe_str(error)}", context.current())
            await self.fail(single_line(text))
        else:
            await self._close()

    async def _close(self) -> None:
        message = plural((await self.counts()).total, "job")
        plan = plan_close_batch(self._jobs.runtime.ids.new_operation_id(), self.awaited, message)
        await self._apply([Write(self.name, plan, answer=False)])

    async def fail(self, text: str) -> None:
        """Fail the batch, if it is open, and cancel its open members. A repeated call cancels those that are still open."""
        new_id = self._jobs.runtime.ids.new_operation_id
        failed = (await self._apply([Write(self.name, plan_update(new_id(), JobStatus.FAILED, error=text))]))[0]
        job = failed.job
        if not failed.accepted and (job is None or job.status != JobStatus.FAILED or "closed" in job.record):
            return
        await descendants.cancel_members(self._jobs.store, self.awaited, new_id, by="batch", why="batch_failed")

    async def _apply(self, writes: list[Write]) -> list[Any]:
        return (await self._jobs.store.apply(writes)).outcomes

    async def report(self) -> None:
        """Say that the process which has the batch open is alive. `async with` does this every 15 s."""
        total = (await self.counts()).total
        plan = plan_update(
            self._jobs.runtime.ids.new_operation_id(), None, message=f"Open, {plural(total, 'job')} so far"
        )
        await self._apply([Write(self.name, plan, answer=False)])

    async def __aenter__(self) -> Self:
        await self.open()
        self._alive = asyncio.get_running_loop().create_task(self._stay_alive())
        return self

    async def _stay_alive(self) -> None:
        while True:
            await asyncio.sleep(ALIVE_INTERVAL)
            with contextlib.suppress(MilepostError):  # tried again; a batch that was deleted is found at the end
                await self.report()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._alive is not None:
            self._alive.cancel()
        await self.close(error)


def _is_interruption(error: BaseException) -> bool:
    """Return whether an error ends the code of a run but not its attempt, so that the code starts again."""
    run = context.current()
    if isinstance(error, BaseExceptionGroup):
        error = of_group(error)
    if isinstance(error, asyncio.CancelledError) and run is not None and run._stop_reasons:
        error = run._stop_reasons[0]  # what has cancelled the task of the code
    if isinstance(error, Snooze):
        return run is not None and run._job.run_by != "track"
    return isinstance(error, RunStop) and not isinstance(error, JobCancelled | JobTimedOut)


class Batch:
    """A batch of jobs, made by `Jobs.batch`: ``with jobs.batch("import-42") as batch``. The blocking form of AsyncBatch.

    Without `with` it is a handle of a batch that exists: `counts`, `wait` and `then` work at any time.
    """

    def __init__(self, batch: AsyncBatch) -> None:
        self._async = batch
        self.name = self.job_id = batch.name
        """Its name, and the id of its record."""
        self.awaited = batch.awaited
        """What stands for the batch in `after`."""
        self._ended = threading.Event()

    @property
    def store(self) -> Store | None:
        """Return the store of the batch; None if the batch is on a server."""
        return self._async.store

    submit = blocking(AsyncBatch.submit)
    submit_many = blocking(AsyncBatch.submit_many)
    then = blocking(AsyncBatch.then)
    counts = blocking(AsyncBatch.counts)
    wait = blocking(AsyncBatch.wait)

    def __enter__(self) -> Self:
        run_sync(self._async.open())
        self._ended.clear()
        threading.Thread(target=self._stay_alive, name=f"milepost-batch-{self.name}", daemon=True).start()
        return self

    def _stay_alive(self) -> None:
        while not self._ended.wait(ALIVE_INTERVAL):
            with contextlib.suppress(MilepostError):  # tried again; a batch that was deleted is found at the end
                run_sync(self._async.report())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        run_sync(self._async.close(error))
