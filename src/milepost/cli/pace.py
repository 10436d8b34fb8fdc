"""How fast a job goes and how long it still needs, from the samples that this command has seen. Owns the window; knows
no terminal. Where the record brings a range of finish times, that is what counts.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import UTC, datetime

from milepost.core.job import Eta, Job, Stage

WINDOW = 15.0
LEAST = 1.5
"""Seconds of samples of one stage below which nothing is said."""
SPREAD = 0.15


class Pace:
    """Samples of one job; anew with each stage, since stages go at their own speed."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float, float]] = deque()
        self._stage: str | None = None

    def sample(self, fraction: float, stage: Stage | None, now: float | None = None) -> None:
        """Add what is known now."""
        at = time.monotonic() if now is None else now
        name = stage.name if stage is not None else None
        done = stage.done if stage is not None else 0.0
        if name != self._stage or (self._samples and done < self._samples[-1][2]):
            self._samples.clear()
            self._stage = name
        self._samples.append((at, fraction, done))
        while at - self._samples[0][0] > WINDOW and len(self._samples) > 2:
            self._samples.popleft()

    def _slope(self, column: int) -> float | None:
        """Growth per second over the window; None while too little is known."""
        if len(self._samples) < 2:
            return None
        first, last = self._samples[0], self._samples[-1]
        spent = last[0] - first[0]
        grown = last[column] - first[column]
        return grown / spent if spent >= LEAST and grown > 0 else None

    def rate(self) -> float | None:
        """Units of the stage per second."""
        return self._slope(2)

    def left(self, now: float | None = None) -> tuple[float, float] | None:
        """Seconds that are left, least and most; None while unknown."""
        slope = self._slope(1)
        if slope is None:
            return None
        at, fraction, _ = self._samples[-1]
        spent = at - self._samples[0][0]
        left = max(0.0, (1 - fraction) / slope - ((time.monotonic() if now is None else now) - at))
        spread = SPREAD + (1 - SPREAD) * LEAST / (spent + LEAST) / 2  # the shorter we looked, the less we know
        return left * (1 - spread), left * (1 + spread)


def leaf(stages: tuple[Stage, ...]) -> Stage | None:
    """The innermost stage that is open, or None."""
    return next((stage for stage in reversed(stages) if stage.ended_at is None), None)


def recorded(eta: Eta | None, now: datetime) -> tuple[float, float] | None:
    """The seconds that are left, least and most, as the record says; None when it says nothing, or nothing any more."""
    if eta is None:
        return None
    low = (datetime.fromisoformat(eta.earliest) - now).total_seconds()
    high = (datetime.fromisoformat(eta.latest) - now).total_seconds()
    return (max(0.0, low), high) if high > 0 else None


def left_of(job: Job, now: datetime | None = None) -> tuple[float, float] | None:
    """How long a running job still needs, from its record alone; None while that is unknown."""
    if job.status != "running":
        return None
    now = now or datetime.now(UTC)
    if (known := recorded(job.eta, now)) is not None:
        return known
    starts = [stage.started_at for stage in job.stages if stage.started_at]
    begun = datetime.fromisoformat(min(starts)) if starts else job.started_at
    seen = job.updated_at
    if begun is None or seen is None or not 0.02 <= job.progress < 1 or job.stalled:
        return None
    spent = (seen - begun).total_seconds()
    if spent < 2 * LEAST:
        return None
    left = max(0.0, spent * (1 - job.progress) / job.progress - (now - seen).total_seconds())
    return left * (1 - 2 * SPREAD), left * (1 + 2 * SPREAD)
