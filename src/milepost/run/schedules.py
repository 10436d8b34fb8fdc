"""Fire schedules: create the jobs of the ticks that have come, each in one guarded step.

Any process may fire any schedule, and several at once are harmless: the step that creates a job also moves the schedule to
its next tick, and is refused if the schedule is not as it was read. The ticks are those of a cron expression in a time zone, or of a fixed
interval.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from heapq import merge
from itertools import islice, takewhile
from typing import Literal, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from milepost.core.activity import plural
from milepost.core.errors import InvalidInputError, MissingExtraError
from milepost.core.job import Job, JobStatus
from milepost.core.schedule import SCHEDULES, Schedule
from milepost.core.serialization import from_micros, seconds
from milepost.core.transitions import plan_fire
from milepost.run.locked_jobs import LockedJobs
from milepost.stores.protocol import NOT_WRITTEN, KeyValue, Store, Write
from milepost.stores.scan import scan_all

MAX_EVERY = 366 * 86_400
CLOCK_CHANGE = timedelta(hours=26)
"""More than any change of a local clock."""
_CRON_HELP = "use five fields, for example '0 3 * * *' for 03:00 every day"


class Ticks(Protocol):
    """When a schedule is due. Times are in UTC, with whole seconds."""

    def after(self, moment: datetime) -> datetime:
        """Return the first tick after a time."""

    def until(self, moment: datetime) -> Iterator[datetime]:
        """Yield the ticks up to a time, the latest first."""


class IntervalTicks:
    """A tick at every multiple of an interval since 1970, so that no restart moves it."""

    def __init__(self, interval: int) -> None:
        self._interval = interval

    def after(self, moment: datetime) -> datetime:
        return datetime.fromtimestamp((int(moment.timestamp()) // self._interval + 1) * self._interval, UTC)

    def until(self, moment: datetime) -> Iterator[datetime]:
        number = int(moment.timestamp()) // self._interval
        while number > 0:
            yield datetime.fromtimestamp(number * self._interval, UTC)
            number -= 1


class CronTicks:
    """The ticks of a cron expression in the local time of a zone.

    A local time that does not exist, because the clocks go forward, is a tick at the end of the gap. One that comes twice
    is a tick the first time; only with a minute or an hour that begins with ``*`` it is one both times.
    """

    def __init__(self, cron: str, zone: ZoneInfo) -> None:
        try:
            from cronsim import CronSim, CronSimError
        except ModuleNotFoundError as error:
            raise MissingExtraError("schedule", "a schedule with cron") from error
        self._simulate, self._cron, self._zone = CronSim, cron, zone
        if len(cron.split()) != 5:
            raise InvalidInputError("cron", f"{cron!r:.80} has {plural(len(cron.split()), 'field')}; {_CRON_HELP}")
        self._repeats = any(field.startswith("*") for field in cron.split()[:2])
        try:
            found = next(iter(CronSim(cron, datetime.now(zone))), None)
        except CronSimError as error:
            raise InvalidInputError("cron", f"{cron!r:.80}: {str(error).lower()}; {_CRON_HELP}") from None
        if found is None:
            raise InvalidInputError("cron", f"{cron!r:.80} names no date that exists; {_CRON_HELP}")

    def after(self, moment: datetime) -> datetime:
        # At a change of the clocks, local times may come in another order than their ticks.
        local = (moment - self._margin(moment)).astimezone(self._zone).replace(tzinfo=None)
        found: list[Iterator[datetime]] = [map(self._first, self._simulate(self._cron, local))]
        if self._repeats:
            found.append(tick.astimezone(UTC) for tick in self._simulate(self._cron, moment.astimezone(self._zone)))
        ticks = [tick for each in found if (tick := next((one for one in each if one > moment), None)) is not None]
        if not ticks:
            raise InvalidInputError("cron", f"{self._cron!r:.80} has no tick after {moment:%Y-%m-%d}; {_CRON_HELP}")
        return min(ticks)

    def until(self, moment: datetime) -> Iterator[datetime]:
        local = (moment + self._margin(moment) + timedelta(seconds=1)).astimezone(self._zone).replace(tzinfo=None)
        found: list[Iterator[datetime]] = [map(self._first, self._simulate(self._cron, local, reverse=True))]
        if self._repeats:
            start = (moment + timedelta(seconds=1)).astimezone(self._zone)
            found.append(tick.astimezone(UTC) for tick in self._simulate(self._cron, start, reverse=True))
        last = None
        for tick in merge(*found, reverse=True):
            if tick <= moment and tick != last:
                yield tick
                last = tick

    def _margin(self, moment: datetime) -> timedelta:
        """Return how far around a time local times may be in another order than their ticks: 0 without a clock change."""
        offsets = [(moment + by).astimezone(self._zone).utcoffset() or timedelta(0)
                   for by in (-CLOCK_CHANGE, timedelta(0), CLOCK_CHANGE)]  # fmt: skip
        return max(offsets) - min(offsets)

    def _first(self, local: datetime) -> datetime:
        """Return the first moment with a local time; the end of the gap if there is none."""
        while True:
            found = local.replace(tzinfo=self._zone).astimezone(UTC)
            if found.astimezone(self._zone).replace(tzinfo=None) == local:
                return found
            local += timedelta(minutes=1)


def ticks_of(schedule: Schedule) -> Ticks:
    """Return the ticks of a schedule. Raises InvalidInputError, naming the field, and MissingExtraError."""
    return _ticks(schedule.cron, schedule.every, schedule.tz)


def upcoming(schedule: Schedule, count: int) -> tuple[datetime, ...]:
    """Return the next ticks of a schedule."""
    found: list[datetime] = [schedule.next_at] if schedule.next_at is not None else []
    while found and len(found) < count:
        found.append(ticks_of(schedule).after(found[-1]))
    return tuple(found)


def interval_seconds(every: float | timedelta | str) -> int:
    """Return an interval in seconds. Raises InvalidInputError."""
    interval = seconds(every, "every")
    if interval != int(interval) or not 1 <= interval <= MAX_EVERY:
        raise InvalidInputError("every", f"{every!r:.40} must be whole seconds from 1 s to 366 days")
    return int(interval)


@lru_cache(maxsize=1024)
def _ticks(cron: str | None, every: float | None, tz: str) -> Ticks:
    if (cron is None) == (every is None):
        raise InvalidInputError("cron", "give either cron or every")
    if every is not None:
        return IntervalTicks(interval_seconds(every))
    try:
        zone = ZoneInfo(tz)
    except (OSError, ValueError, LookupError, TypeError):
        raise InvalidInputError("tz", f"{tz!r:.60} is not a time zone; use a name such as 'Europe/Berlin'") from None
    if not isinstance(cron, str):
        raise InvalidInputError("cron", f"{cron!r:.60} is not text; {_CRON_HELP}")
    return CronTicks(cron, zone)


log = logging.getLogger("milepost.schedules")
log.addHandler(logging.NullHandler())

MAX_CAUGHT_UP = 100
"""The most missed ticks that `catch_up="all"` makes jobs for: the newest ones."""
ON_TIME = timedelta(seconds=60)
"""How late a tick may be to count as not missed, for `catch_up="none"`."""
UNDECLARED_AFTER = timedelta(hours=24)
DUE_AT_ONCE = 200
"""How many due schedules a call of `fire_due` with a `turn` handles."""
_BY_KEY = "key:"
_Unfinished = Literal["queued", "started", "removed"]


class _Firing(NamedTuple):
    """The writes for the due ticks of one schedule; `moved` is the schedule after them."""

    item: KeyValue
    writes: list[Write]
    steps: dict[str, datetime]
    """The stored value before each tick -> the tick."""
    moved: Schedule


@dataclass
class FiringTurn:
    """The time that a call of `fire_due` has, and where the next call continues if it did not suffice."""

    monotonic: Callable[[], float]
    until: float = math.inf
    after: str = ""
    """The key of the last schedule of an unfinished call, else empty."""


async def read_schedules(store: Store, after: str = "") -> list[tuple[KeyValue, Schedule]]:
    """Return all schedules that can be read, with their stored values, by name; those that follow the key `after`."""
    found: list[tuple[KeyValue, Schedule]] = []
    async for item in scan_all(store, SCHEDULES, after):
        try:
            found.append((item, Schedule.from_text(item.value)))
        except (ValueError, TypeError, KeyError):
            log.error("schedule %s: its record cannot be read", item.key.removeprefix(SCHEDULES))
    return found


async def fire_due(
    store: Store,
    new_operation_id: Callable[[], str],
    locked: LockedJobs | None = None,
    turn: FiringTurn | None = None,
) -> int:
    """Create the jobs of all ticks that have come; return how many this call created. Raises StoreError.

    A tick whose job id or unique key is locked by another transaction stays due. With `turn`, end when its time is over,
    after at least one schedule, or after DUE_AT_ONCE of them.
    """
    found = await read_schedules(store, turn.after if turn is not None else "")
    if turn is not None:
        turn.after = ""
    if not found:
        return 0
    now = from_micros(await store.now())
    due: list[tuple[KeyValue, Schedule, Job | None]] = []
    for number, (item, schedule) in enumerate(found, 1):
        if schedule.paused is not None or schedule.next_at is None:
            continue
        if (why := await _why_paused(store, schedule, now)) is not None:
            log.warning("schedule %s: paused: %s", schedule.name, why)
            await store.kv_put(item.key, replace(schedule, paused=why).to_text(), version=item.version)
        elif schedule.next_at <= now:
            due.append((item, schedule, await store.get(job_id) if (job_id := _awaited(schedule)) else None))
        else:
            continue
        if turn is not None and number < len(found) and (turn.monotonic() >= turn.until or len(due) == DUE_AT_ONCE):
            turn.after = item.key
            break
    # After the jobs: one that was cancelled meanwhile must not be taken for one whose code has stopped.
    has_ended = any(_awaited(schedule) and (job is None or job.is_terminal) for _, schedule, job in due)
    stopping = {job_id for job_id, _, _ in await store.draining_leases()} if has_ended else set()
    firings: list[_Firing] = []
    for item, schedule, job in due:
        try:
            firings.append(_plan(item, schedule, _unfinished(schedule, job, stopping), now, new_operation_id))
        except (MissingExtraError, InvalidInputError) as error:
            log.error("schedule %s: not fired by this process: %s", schedule.name, error)
    writes = [write for firing in firings for write in firing.writes]
    outcomes = await (locked or LockedJobs(log)).apply(store, writes)
    remaining = iter(outcomes)
    for firing in firings:
        refused = [one for one in islice(remaining, len(firing.writes)) if not one.accepted]
        if not firing.writes:
            await store.kv_put(firing.item.key, firing.moved.to_text(), version=firing.item.version)
        elif refused and refused[0] is not NOT_WRITTEN:
            is_taken = refused[0].job is not None or refused[0].key_owner_id is not None
            await _explain_refusal(store, firing, is_taken)
    return sum(outcome.accepted and not outcome.repeated for outcome in outcomes)


def _plan(
    item: KeyValue, schedule: Schedule, last: _Unfinished | None, now: datetime, new_operation_id: Callable[[], str]
) -> _Firing:
    """Return what the due ticks of a schedule create. `last` is how far its last job is."""
    next_at = ticks_of(schedule).after(now)
    due = due_ticks(schedule, now)
    if last is not None and _is_skipped(schedule, last, len(due)):
        moved = replace(schedule, next_at=next_at, skipped=schedule.skipped + len(due))
        return _Firing(item, [], {}, moved)
    if last == "removed":
        return _Firing(item, [], {}, schedule)  # a job cannot wait for it, so the ticks stay due
    previous = schedule.last_job_id if last is not None else None
    writes: list[Write] = []
    steps: dict[str, datetime] = {}
    current, text = schedule, item.value
    for number, tick in enumerate(due, 1):
        job_id = schedule.job_id(tick)
        following = due[number] if number < len(due) else next_at
        current = replace(current, next_at=following, last_at=tick, last_job_id=job_id, fired=current.fired + 1)
        steps[text] = tick
        before, text = text, current.to_text()
        fields = schedule.job_fields(tick, previous)
        change = plan_fire(fields, new_operation_id(), key=item.key, before=before, after=text)
        writes.append(Write(job_id, change))
        previous = job_id if schedule.overlap != "allow" else None
    return _Firing(item, writes, steps, replace(current, next_at=next_at))


def due_ticks(schedule: Schedule, now: datetime) -> list[datetime]:
    """Return the ticks that have come and that `catch_up` makes jobs for, the oldest first."""
    first = schedule.next_at
    if first is None:
        return []
    most = MAX_CAUGHT_UP if schedule.catch_up == "all" else 1
    due = list(islice(takewhile(lambda tick: tick >= first, ticks_of(schedule).until(now)), most))
    if schedule.catch_up == "none":
        due = [tick for tick in due if now - tick <= ON_TIME]
    return due[::-1]


def _awaited(schedule: Schedule) -> str | None:
    """Return the id of the last job, which the next one must not overlap, or None."""
    return schedule.last_job_id if schedule.overlap != "allow" else None


def _unfinished(schedule: Schedule, last: Job | None, stopping: Collection[str]) -> _Unfinished | None:
    """Return how far the job that must not be overlapped is, or None if its code has stopped; "removed" is still stopping."""
    if last is not None and not last.is_terminal:
        # A job that waits for a retry or is suspended has started: the next one may queue behind it.
        return "queued" if last.status is JobStatus.PENDING and last.attempt == 0 else "started"
    if _awaited(schedule) not in stopping:
        return None
    return "started" if last is not None else "removed"


def _is_skipped(schedule: Schedule, last: _Unfinished, due: int) -> bool:
    """Return whether due ticks make no job because of the last one. Missed ticks wait for it in any case."""
    if schedule.catch_up == "all" and due > 1:
        return False
    return schedule.overlap == "skip" or last == "queued"


async def _explain_refusal(store: Store, firing: _Firing, is_taken: bool) -> None:
    """Log why the first tick that has no job yet has none. Move past it if another job has its id or unique key."""
    item = await store.kv_get(firing.item.key)
    tick = firing.steps.get(item.value) if item is not None else None
    if item is None or tick is None:
        return  # another process has fired it, or the schedule was changed
    if not is_taken:
        log.warning("schedule %s: no job for %s: the store refused it", firing.moved.name, tick.isoformat())
        return
    schedule = Schedule.from_text(item.value)
    log.warning("schedule %s: no job for %s: its id or unique key is taken", schedule.name, tick.isoformat())
    moved = replace(schedule, next_at=ticks_of(schedule).after(tick), skipped=schedule.skipped + 1)
    await store.kv_put(item.key, moved.to_text(), version=item.version)


async def _why_paused(store: Store, schedule: Schedule, now: datetime) -> str | None:
    """Return why a schedule is to be paused, or None."""
    if schedule.declared_at is not None and now - schedule.declared_at > UNDECLARED_AFTER:
        return "undeclared"
    by, is_due = schedule.created_by or "", schedule.next_at is not None and schedule.next_at <= now
    if is_due and by.startswith(_BY_KEY) and not await _is_key_usable(store, by.removeprefix(_BY_KEY), now):
        return "key_ended"
    return None


async def _is_key_usable(store: Store, key_id: str, now: datetime) -> bool:
    """Return whether the API key with this id exists and is neither revoked nor expired."""
    item = await store.kv_get(f"key/{key_id}")
    if item is None:
        return False
    key = json.loads(item.value)
    expires = key.get("expires")
    return key.get("revoked") is None and (expires is None or from_micros(expires) > now)
