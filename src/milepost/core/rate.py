"""Rates of starts: how many jobs may start per period, as the generic cell rate algorithm (GCRA) counts them.

Starts are spaced evenly, `spacing` apart. After a pause, as many may start at once as the rate allows in 50 ms. All that
is kept is one time, `opens`: when the next job may start.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import seconds

MAX_STARTS = 1_000_000
MAX_PERIOD = 366 * 86_400
_BURSTS_PER_SECOND = 20
_RATE = re.compile(r"([0-9]{1,20})/([0-9]*[a-z]\w*)")
_PERIODS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "hour": 3600, "day": 86_400}
_SHOWN = {1: "s", 60: "min", 3600: "h", 86_400: "d"}


class Rate(NamedTuple):
    """At most `starts` in `period` seconds."""

    starts: int
    period: int

    @classmethod
    def parse(cls, value: object) -> Rate:
        """Return the rate of a text such as ``500/min``, ``10/s`` or ``1000/15m``. Raises InvalidInputError."""
        found = _RATE.fullmatch(value.replace(" ", "").lower()) if isinstance(value, str) else None
        period = None if found is None else _period_seconds(found[2])
        if found is None or period is None:
            raise InvalidInputError(
                "rate",
                f"{value!r:.40} is not a rate; use starts per period, for example '500/min', '10/s' or '1000/15m'",
            )
        starts = int(found[1])
        if not 1 <= starts <= MAX_STARTS or period != int(period) or not 1 <= period <= MAX_PERIOD:
            raise InvalidInputError(
                "rate",
                f"{value!r:.40} must be 1 to {MAX_STARTS} starts in a whole number of seconds, at most a year, for example "
                "'500/min' or '1000/15m'",
            )
        return cls(starts, int(period))

    def __str__(self) -> str:
        return f"{self.starts}/{_SHOWN.get(self.period) or f'{self.period}s'}"

    @property
    def spacing(self) -> int:
        """Return the microseconds between starts."""
        return -(-self.period * 1_000_000 // self.starts)

    @property
    def tolerance(self) -> int:
        """Return how many microseconds of starts may be made up for at once after a pause."""
        return (max(1, self.starts // (self.period * _BURSTS_PER_SECOND)) - 1) * self.spacing

    def admitted(self, opens: int, now: int) -> int:
        """Return how many jobs may start now, if one may."""
        return (now - self._unused_since(opens, now)) // self.spacing + 1

    def after_start(self, opens: int, now: int) -> int:
        """Return when the next job may start after one has started."""
        return self._unused_since(opens, now) + self.spacing

    def after_return(self, opens: int, started: int, now: int) -> int:
        """Return when the next job may start after the start at `started` was given back.

        One that is older than what may be made up for is lost, as it is if it was never taken.
        """
        fresh = started <= now < started + self.spacing + self.tolerance
        return max(0, opens - self.spacing) if fresh else opens

    def _unused_since(self, opens: int, now: int) -> int:
        return now if opens > now else max(opens, now - self.tolerance)


def _period_seconds(text: str) -> float | None:
    """Return the seconds of a period such as ``min`` or ``15m``, or None if it is not one."""
    try:
        return _PERIODS.get(text) or seconds(text if text[0].isdigit() else f"1{text}", "period")
    except InvalidInputError:
        return None
