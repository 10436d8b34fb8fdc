"""How numbers, times and durations are said to people. Owns rounding (durations floor); knows no terminal."""

from __future__ import annotations

import math
from datetime import UTC, datetime

MINUTE, HOUR, DAY = 60, 3600, 86400


def duration(seconds: float) -> str:
    """A length of time in its two largest units, rounded down: ``88 ms``, ``0.4 s``, ``58 s``, ``1 min 05 s``, ``2 h 10 min``."""
    seconds = max(0.0, seconds)
    if seconds < 0.1:
        return f"{int(seconds * 1000)} ms"
    if seconds < 10:
        return f"{math.floor(seconds * 10) / 10:.1f} s"
    whole = int(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE:02} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE:02} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def briefly(seconds: float) -> str:
    """A length of time in one unit, rounded down, for a narrow column: ``58 s``, ``4 min``, ``2 h``, ``3 d``."""
    whole = max(0, int(seconds))
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if whole >= size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def time_left(low: float, high: float) -> str:
    """A range of seconds that are left: ``about 5 to 7 s left``."""
    return f"{about(low, high)} left"


def about(low: float, high: float) -> str:
    """A range of seconds: ``about 5 to 7 s``."""
    for size, unit, below in ((1, "s", 120), (MINUTE, "min", 120 * MINUTE), (HOUR, "h", 72 * HOUR), (DAY, "d", 1e18)):
        if high < below:
            step = 5 if unit == "s" and high >= 40 else 1
            first = max(1, math.floor(low / size / step) * step)
            last = max(first, math.ceil(high / size / step) * step)
            return f"about {first} to {last} {unit}" if last > first else f"about {last} {unit}"
    raise AssertionError("the last unit takes all")


def start_in(range_: tuple[float, float] | None) -> str:
    """When a job is expected to start: ``in about 2 to 4 min``, ``now``; empty when that is unknown."""
    if range_ is None:
        return ""
    return "now" if range_[1] < 1 else f"in {about(*range_)}"


def percent(fraction: float) -> str:
    """A fraction as whole percent, rounded down, so that 100 % is only said of what is done."""
    return f"{math.floor(min(1.0, max(0.0, fraction)) * 100 + 1e-9)} %"


def size(count: float) -> str:
    """Bytes: ``812 B``, ``80.1 kB``, ``3.4 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def number(value: float) -> str:
    """A count with thousands separated: ``10,482``."""
    return f"{int(value):,}" if isinstance(value, int) or value.is_integer() else f"{value:,.1f}"


def plural(count: float, noun: str) -> str:
    """A count and its noun: ``1 job``, ``412 jobs``."""
    return f"{number(count)} {nouns(noun, count)}"


def nouns(noun: str, count: float) -> str:
    """The noun as that count needs it."""
    if count == 1:
        return noun
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else noun + "s"


def units(done: float, total: float | None, unit: str) -> str:
    """How many of how many: ``254/412 chunks``; bytes as sizes."""
    if unit == "byte":
        return size(done) if total is None else f"{size(done)} of {size(total)}"
    if total is None:
        return plural(done, unit)
    return f"{number(done)}/{number(total)} {nouns(unit, total)}"


def rate(per_second: float, unit: str) -> str:
    """A rate: ``31/s``, ``3.1/s``, ``12/min``; bytes as ``1.2 MB/s``."""
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
    """A time of day, local or UTC; with its date when that is not today's."""
    zone = UTC if utc else None
    shown = moment.astimezone(zone)
    today = (now or datetime.now(UTC)).astimezone(zone)
    mark = "Z" if utc else ""
    if shown.date() == today.date():
        return f"{shown:%H:%M:%S}{mark}"
    if shown.year == today.year:
        return f"{shown:%d %b %H:%M}{mark}"
    return f"{shown:%Y-%m-%d %H:%M}{mark}"


def stamp(moment: datetime, *, utc: bool) -> str:
    """A date and a time with the offset of its zone: ``2026-01-30 22:41:07 +01:00``."""
    shown = moment.astimezone(UTC if utc else None)
    offset = f"{shown:%z}"
    return f"{shown:%Y-%m-%d %H:%M:%S} " + ("UTC" if utc else f"{offset[:3]}:{offset[3:]}")


def age(moment: datetime, now: datetime | None = None) -> str:
    """How long ago: ``12 s ago``."""
    return f"{briefly(((now or datetime.now(UTC)) - moment).total_seconds())} ago"
