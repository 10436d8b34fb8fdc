"""How fast a job goes, from the samples that this command has seen, and how long it still needs, as its record says. Owns the
window; knows no terminal.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import UTC, datetime

from milepost.core.job import Eta, Job, Stage

WINDOW = 15.0
LEAST = 1.5
"""Seconds of samples of one stage below which nothing is said."""


class Pace:
    """Samples of one job; anew with each stage, since stages go at their own speed."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()
        self._stage: str | None = None

    def sample(self, stage: Stage | None, now: float | None = None) -> None:
        """Add what is known now."""
        at = time.monotonic() if now is None else now
        name = stage.name if stage is not None else None
        done = stage.done if stage is not None else 0.0
        if name != self._stage or (self._samples and done < self._samples[-1][1]):
            self._samples.clear()
            self._stage = name
        self._samples.append((at, done))
        while at - self._samples[0][0] > WINDOW and len(self._samples) > 2:
            self._samples.popleft()

    def rate(self) -> float | None:
        """Units of the stage per second over the window; None while too little is known."""
        if len(self._samples) < 2:
            return None
        first, last = self._samples[0], self._samples[-1]
        spent, grown = last[0] - first[0], last[1] - first[1]
        return grown / spent if spent >= LEAST and grown > 0 else None


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
    """How long a running job still needs; None while that is unknown."""
    return recorded(job.eta, now or datetime.now(UTC)) if job.status == "running" and not job.stalled else None


def start_of(job: Job, now: datetime | None = None) -> tuple[float, float] | None:
    """How long until a pending job is expected to start; None while that is unknown."""
    expected = job.expected_start if job.status == "pending" else None
    return None if expected is None else recorded(expected, now or datetime.now(UTC)) or (0.0, 0.0)
