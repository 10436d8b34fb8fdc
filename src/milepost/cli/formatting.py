"""Formatting of numbers, times and durations for people. Durations are rounded down."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from milepost.core.activity import DAY, HOUR, MINUTE, duration, number, percent, plural, pluralize, size

__all__ = [
    "about",
    "age",
    "clock",
    "duration",
    "number",
    "percent",
    "plural",
    "pluralize",
    "rate",
    "short_duration",
    "size",
    "start_text",
    "time_left",
    "timestamp",
    "units",
]


def short_duration(seconds: float) -> str:
    """Return a duration in its largest unit: ``58 s``, ``4 min``, ``2 h``, ``3 d``."""
    whole = max(0, int(seconds))
    for length, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if whole >= length:
            return f"{whole // length} {unit}"
    return f"{whole} s"


def time_left(low: float, high: float) -> str:
    """Return a range of remaining seconds: ``about 5 to 7 s left``."""
    return f"{about(low, high)} left"


def about(low: float, high: float) -> str:
    """Return a range of seconds: ``about 5 to 7 s``."""
    for length, unit, below in ((1, "s", 120), (MINUTE, "min", 120 * MINUTE), (HOUR, "h", 72 * HOUR), (DAY, "d", 1e18)):
        if high < below:
            step = 5 if unit == "s" and high >= 40 else 1
            first = max(1, math.floor(low / length / step) * step)
            last = max(first, math.ceil(high / length / step) * step)
            return f"about {first} to {last} {unit}" if last > first else f"about {last} {unit}"
    raise AssertionError("the last unit takes all")


def start_text(range_: tuple[float, float] | None) -> str:
    """Return when a job is expected to start: ``in about 2 to 4 min``, ``now``, or an empty string if unknown."""
    if range_ is None:
        return ""
    return "now" if range_[1] < 1 else f"in {about(*range_)}"


def units(done: float, total: float | None, unit: str) -> str:
    """Return progress in units: ``254/412 chunks``, ``3 pages``, ``1.2 MB of 3.4 MB``."""
    if unit == "byte":
        return size(done) if total is None else f"{size(done)} of {size(total)}"
    if total is None:
        return plural(done, unit)
    return f"{number(done)}/{number(total)} {pluralize(unit, total)}"


def rate(per_second: float, unit: str) -> str:
    """Return a rate: ``31/s``, ``3.1/s``, ``12/min``, ``1.2 MB/s``."""
    if unit == "byte":
        return f"{size(per_second)}/s"
    if per_second >= 10:
        return f"{number(round(per_second))}/s"
    if per_second >= 1:
        return f"{per_second:.1f}/s"
    if per_second * MINUTE >= 1:
        return f"{per_second * MINUTE:.0f}/min"
    return f"{per_second * HOUR:.0f}/h"


def clock(moment: datetime, *, utc: bool, now: datetime | None = None) -> str:
    """Return a time of day, local or UTC, with the date if it is not today."""
    zone = UTC if utc else None
    shown = moment.astimezone(zone)
    today = (now or datetime.now(UTC)).astimezone(zone)
    mark = "Z" if utc else ""
    if shown.date() == today.date():
        return f"{shown:%H:%M:%S}{mark}"
    if shown.year == today.year:
        return f"{shown:%d %b %H:%M}{mark}"
    return f"{shown:%Y-%m-%d %H:%M}{mark}"


def timestamp(moment: datetime, *, utc: bool) -> str:
    """Return a date and time with its UTC offset: ``2026-01-30 22:41:07 +01:00``."""
    shown = moment.astimezone(UTC if utc else None)
    offset = f"{shown:%z}"
    return f"{shown:%Y-%m-%d %H:%M:%S} " + ("UTC" if utc else f"{offset[:3]}:{offset[3:]}")


def age(moment: datetime, now: datetime | None = None) -> str:
    """Return the time since then: ``12 s ago``."""
    return f"{short_duration(((now or datetime.now(UTC)) - moment).total_seconds())} ago"
