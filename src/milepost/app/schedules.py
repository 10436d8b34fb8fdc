"""Schedules of an application: declared in its code, or made by a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from milepost.core.errors import InvalidInputError
from milepost.core.job import Job
from milepost.core.options import json_object
from milepost.core.schedule import (
    CATCH_UP,
    OF_ONE_JOB,
    OVERLAP,
    CatchUp,
    Overlap,
    Schedule,
    validate_schedule_name,
)
from milepost.manager.manager import AsyncJobManager
from milepost.manager.schedules import put_schedule
from milepost.run.schedules import interval_seconds, ticks_of
from milepost.stores.protocol import Store
from milepost.stores.sync_bridge import delegated, run_sync
from milepost.worker.handlers import Handlers, Submittable
from milepost.worker.submission import SubmissionBuilder

if TYPE_CHECKING:
    from milepost.app.jobs import Target


class ScheduleDeclarations:
    """The methods of AsyncJobs for schedules."""

    handlers: Handlers
    submissions: SubmissionBuilder
    store: Store
    manager: AsyncJobManager

    list_schedules = delegated(AsyncJobManager.list_schedules, "manager")
    get_schedule = delegated(AsyncJobManager.get_schedule, "manager")
    pause_schedule = delegated(AsyncJobManager.pause_schedule, "manager")
    resume_schedule = delegated(AsyncJobManager.resume_schedule, "manager")
    remove_schedule = delegated(AsyncJobManager.remove_schedule, "manager")

    if TYPE_CHECKING:

        async def dispatch(self, jobs: Sequence[Job]) -> None: ...

    async def fire_schedule(self, name: str) -> Job:
        """Create a job of a schedule now, and return it. Its ticks stay as they are. Raises ScheduleNotFoundError."""
        job = await self.manager.fire_schedule(name)
        await self.dispatch([job])
        return job

    def schedule(
        self,
        name: str,
        handler: Submittable[..., Any],
        *,
        cron: str | None = None,
        every: float | timedelta | str | None = None,
        tz: str = "UTC",
        catch_up: CatchUp = "last",
        overlap: Overlap = "skip",
        params: Mapping[str, Any] | None = None,
    ) -> Schedule:
        """Declare a schedule of a handler in code, and return it. It does no I/O: a worker of the type writes it when it starts.

        ``jobs.schedule("nightly", reindex, cron="0 3 * * *", tz="Europe/Berlin", params={"index": "docs"})``

        `cron` has five fields and counts in the time zone `tz`; `every` is an interval of whole seconds, such as "15m",
        and its ticks are the multiples of it since 1970. The job of a tick has the id ``NAME:20261126T020000Z`` and the
        tick in `scheduled_at`. Of ticks that were missed because no process ran, `catch_up` makes jobs for the ``"last"``
        one, for ``"none"``, or for ``"all"`` (the newest 100). While the job of the tick before has not ended,
        `overlap` decides: ``"skip"`` the tick, ``"queue"`` one job that starts when it has ended, or ``"allow"``.
        `params` are the parameters of the handler; ``handler.options(...)`` sets other options of its jobs. Raises
        InvalidInputError, and MissingExtraError for `cron` without ``milepost[schedule]``.
        """
        made = self._definition(name, handler, cron, every, tz, catch_up, overlap, params)
        schedule = run_sync(made)  # a handler of this application is validated without I/O
        return self.handlers.add_schedule(replace(schedule, declared=schedule.digest))

    async def add_schedule(
        self,
        name: str,
        target: Target,
        *,
        cron: str | None = None,
        every: float | timedelta | str | None = None,
        tz: str = "UTC",
        catch_up: CatchUp = "last",
        overlap: Overlap = "skip",
        params: Mapping[str, Any] | None = None,
        created_by: str | None = None,
        options: Mapping[str, Any] | None = None,
        may_change: Callable[[Schedule], None] | None = None,
    ) -> Schedule:
        """Make a schedule now, or change the one of this name, and return it. The parameters are those of `schedule`.

        `target` is a handler or the name of a published type; `options` are those of the submits, for a type by name.
        `may_change` raises for an existing schedule that the caller may not change.
        A change of a schedule that code declares stays until the declaration changes. With other times, ticks before now make
        no jobs.
        Raises InvalidInputError, UnknownJobTypeError and MissingExtraError.
        """
        schedule = await self._definition(name, target, cron, every, tz, catch_up, overlap, params, options)
        return await put_schedule(self.store, replace(schedule, created_by=created_by), may_change)

    async def _definition(
        self,
        name: str,
        target: Target,
        cron: str | None,
        every: float | timedelta | str | None,
        tz: str,
        catch_up: CatchUp,
        overlap: Overlap,
        params: Mapping[str, Any] | None,
        options: Mapping[str, Any] | None = None,
    ) -> Schedule:
        validate_schedule_name(name)
        for field, value, choices in (("catch_up", catch_up, CATCH_UP), ("overlap", overlap, OVERLAP)):
            if value not in choices:
                raise InvalidInputError(field, f"{value!r:.40} must be {' or '.join(map(repr, choices))}")
        if every is not None and tz != "UTC":
            raise InvalidInputError("tz", "belongs to cron; every counts the same in all time zones")
        given = json_object(params, "params")
        if isinstance(target, str):
            submission = await self.submissions.build(target, (given,), options or {})
        else:
            submission = await self.submissions.build(target, (), given)
        chosen = {**getattr(target, "given", {}), **(options or {})}
        for option, problem in OF_ONE_JOB.items():
            if chosen.get(option) is not None:
                raise InvalidInputError(option, problem)
        fields = {field: text for field, text in submission.fields.items() if field != "trace"}
        interval = None if every is None else float(interval_seconds(every))
        schedule = Schedule(
            name=name, job_type=fields["type"], cron=cron, every=interval, tz=tz, catch_up=catch_up, overlap=overlap, fields=fields
        )  # fmt: skip
        ticks_of(schedule)
        return Schedule.from_text(schedule.to_text())
