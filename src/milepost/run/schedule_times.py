"""The ticks of a schedule: a cron expression in a time zone, or a fixed interval."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from heapq import merge
from typing import Protocol
from zoneinfo import ZoneInfo

from milepost.core.activity import plural
from milepost.core.errors import InvalidInputError, MissingExtraError
from milepost.core.schedule import Schedule
from milepost.core.serialization import seconds

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
