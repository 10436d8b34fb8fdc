"""The methods of managers for schedules: list, pause, resume, fire and remove; and the schedules that the code of a worker declares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from milepost.core.errors import InvalidInputError, MissingExtraError, ScheduleNotFoundError
from milepost.core.job import Job
from milepost.core.schedule import SCHEDULES, Schedule, schedule_key, validate_schedule_name
from milepost.core.serialization import from_micros
from milepost.run.schedules import read_schedules, ticks_of, upcoming
from milepost.stores.protocol import KeyValue, KeyValueStore, Store

MAX_SCHEDULES = 1000
"""The most schedules in one namespace: every sweep reads them all."""
SHOWN_TICKS = 5
MAX_CONFLICTS = 20


class ScheduleMethods:
    """Read and change schedules. A change is guarded by the version that was read, and repeated if that has changed."""

    store: Store

    if TYPE_CHECKING:

        async def _create(self, job_id: str | None, fields: dict[str, str], again: int | None = None) -> Job: ...

    async def list_schedules(self) -> list[Schedule]:
        """Return all schedules, by name, each with its next five ticks in `upcoming`."""
        return [with_upcoming(schedule) for _, schedule in await read_schedules(self.store)]

    async def get_schedule(self, name: str) -> Schedule:
        """Return a schedule with its next five ticks in `upcoming`. Raises ScheduleNotFoundError."""
        return with_upcoming(Schedule.from_text((await _existing(self.store, name)).value))

    async def pause_schedule(self, name: str) -> Schedule:
        """Pause a schedule, so that its ticks make no jobs, and return it. Raises ScheduleNotFoundError."""
        return await change_schedule(self.store, name, lambda found, now: replace(found, paused="user"))

    async def resume_schedule(self, name: str) -> Schedule:
        """Resume a paused schedule with its next tick, and return it. Ticks during the pause make no jobs.

        Raises ScheduleNotFoundError.
        """
        return await resume_schedule(self.store, name)

    async def fire_schedule(self, name: str) -> Job:
        """Create a job of a schedule now, and return it. Its ticks stay as they are. Raises ScheduleNotFoundError."""
        item = await _existing(self.store, name)
        now = from_micros(await self.store.now())
        return await self._create(None, Schedule.from_text(item.value).job_fields(now))

    async def remove_schedule(self, name: str) -> None:
        """Remove a schedule; its jobs stay. One that code declares comes back within a minute while a worker with it runs:
        pause it, or remove its declaration.

        Raises ScheduleNotFoundError.
        """
        if not await self.store.kv_delete(schedule_key(name)):
            raise ScheduleNotFoundError(name)


async def _existing(store: Store, name: str) -> KeyValue:
    """Return the stored form of a schedule. Raises ScheduleNotFoundError."""
    item = await store.kv_get(schedule_key(name))
    if item is None:
        raise ScheduleNotFoundError(name)
    return item


async def put_schedule(
    store: Store, wanted: Schedule, may_change: Callable[[Schedule], None] | None = None
) -> Schedule:
    """Store a new schedule, or change one that exists, whose ticks so far stay, and return it. Raises InvalidInputError.

    `may_change` raises for one that the caller may not change; it gets the version that is replaced.
    """
    validate_schedule_name(wanted.name)
    ticks_of(wanted)
    for _ in range(MAX_CONFLICTS):
        item = await store.kv_get(wanted.key)
        now = from_micros(await store.now())
        if item is None:
            if len(await store.kv_scan(SCHEDULES, limit=MAX_SCHEDULES)) >= MAX_SCHEDULES:
                raise InvalidInputError(
                    "name", f"there are {MAX_SCHEDULES:,} schedules already; remove one, or submit jobs with not_before"
                )
            stored = moved_on(replace(wanted, created_at=now), now)
        else:
            found = Schedule.from_text(item.value)
            if may_change is not None:
                may_change(found)
            stored = changed(found, wanted, now)
        if (
            await store.kv_put(stored.key, stored.to_text(), version=item.version if item is not None else 0)
            is not None
        ):
            return with_upcoming(stored)
    raise InvalidInputError("name", f"{wanted.name!r} kept changing; try again")


def changed(found: Schedule, wanted: Schedule, now: datetime) -> Schedule:
    """Return a schedule with the definition of another one; what it has done so far stays.

    A tick that is due stays due unless the times have changed. A pause because of the API key ends with another maker.
    """
    kept = ("next_at", "last_at", "last_job_id", "fired", "skipped", "paused", "created_at")
    defined = replace(wanted, **{name: getattr(found, name) for name in kept})
    if wanted.declared is None:
        of_declaration = ("declared", "declared_at", "replaced", "release")
        overridden = found.declared is not None and found.declared != wanted.digest
        defined = replace(defined, overridden=overridden, **{name: getattr(found, name) for name in of_declaration})
    is_resumed = found.paused == "key_ended" and found.created_by != wanted.created_by
    if is_resumed:
        defined = replace(defined, paused=None)
    if is_resumed or (found.cron, found.every, found.tz) != (wanted.cron, wanted.every, wanted.tz):
        return moved_on(defined, now)
    return defined


async def change_schedule(store: Store, name: str, change: Callable[[Schedule, datetime], Schedule]) -> Schedule:
    """Apply a change to a schedule and return it. Raises ScheduleNotFoundError."""
    for _ in range(MAX_CONFLICTS):
        item = await _existing(store, name)
        new = change(Schedule.from_text(item.value), from_micros(await store.now()))
        if await store.kv_put(item.key, new.to_text(), version=item.version) is not None:
            return with_upcoming(new)
    raise InvalidInputError("name", f"schedule {name!r} kept changing; try again")


async def resume_schedule(store: Store, name: str, by: str | None = None) -> Schedule:
    """Resume a paused schedule. If it was paused because its API key had ended, it belongs to `by` from then on."""

    def resumed(found: Schedule, now: datetime) -> Schedule:
        if found.paused is None:
            return found
        declared_at = None if found.declared_at is None else now
        maker = by if found.paused == "key_ended" else found.created_by
        return moved_on(replace(found, paused=None, declared_at=declared_at, created_by=maker), now)

    return await change_schedule(store, name, resumed)


def moved_on(schedule: Schedule, now: datetime) -> Schedule:
    """Return a schedule whose next tick is the first one after now and after its last one."""
    since = max(now, schedule.last_at or now)
    return replace(schedule, next_at=ticks_of(schedule).after(since))


def with_upcoming(schedule: Schedule) -> Schedule:
    """Return a schedule with its next ticks; none where the package for cron expressions is missing, or while paused."""
    if schedule.paused is not None:
        return schedule
    try:
        return replace(schedule, upcoming=upcoming(schedule, SHOWN_TICKS))
    except (MissingExtraError, InvalidInputError):
        return schedule


REDECLARE_AFTER = timedelta(hours=1)
"""How old the time of an unchanged declaration may be before it is written again."""
MAX_REPLACED = 20
MAX_DECLARE_TRIES = 5


async def declare(
    store: Store,
    schedules: Iterable[Schedule],
    release: str | None,
    living: Callable[[KeyValueStore], Awaitable[frozenset[str]]],
) -> None:
    """Write declared schedules. `living` returns the digests of what live workers declare.

    A declaration that has replaced another one keeps its digest. A worker whose own declaration is among the replaced ones
    is of an older release, and leaves the newer one in place while a worker of that release is alive.
    """
    for wanted in schedules:
        for _ in range(MAX_DECLARE_TRIES):
            item = await store.kv_get(wanted.key)
            found = Schedule.from_text(item.value) if item is not None else None
            now = from_micros(await store.now())
            is_older = found is not None and found.declared != wanted.digest and wanted.digest in found.replaced
            if is_older and found is not None and found.declared in await living(store):
                break
            written = _declared(found, wanted, release, now)
            version = item.version if item is not None else 0
            if written is None or await store.kv_put(wanted.key, written.to_text(), version=version) is not None:
                break


def _declared(found: Schedule | None, wanted: Schedule, release: str | None, now: datetime) -> Schedule | None:
    """Return the schedule after a declaration, or None if nothing is to be written."""
    if found is None:
        return moved_on(replace(wanted, created_at=now, declared_at=now, release=release), now)
    if found.paused == "undeclared":  # missed ticks follow `catch_up`, as if no process had run that could pause it
        found = replace(found, paused=None, declared_at=None)
    if found.declared == wanted.digest:
        is_new = found.declared_at is not None and now - found.declared_at < REDECLARE_AFTER
        return None if is_new else replace(found, declared_at=now)
    if found.declared is None:  # made by a call, which the declaration does not change
        overridden = found.digest != wanted.digest
        return replace(found, declared=wanted.digest, declared_at=now, release=release, overridden=overridden)
    replaced = tuple(dict.fromkeys([found.declared, *found.replaced]))[:MAX_REPLACED]
    return changed(found, replace(wanted, replaced=replaced, declared_at=now, release=release), now)
