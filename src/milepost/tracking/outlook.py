"""What is to be expected of one run: when it will end, and whether it has stalled. The pulse asks at its beats, and sends what
this says with what the run says. Owns how often that is computed and when it is worth telling; the arithmetic is beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from milepost.core.encoding import moment, to_json
from milepost.tracking.digests import Digests
from milepost.tracking.eta import Left, left
from milepost.tracking.stalling import patience, reason
from milepost.tracking.timeline import Lesson, Timeline

FIRST = 1.0
"""Seconds before which nothing is said of a run, and nothing read about earlier ones: most runs are short."""
EVERY, SHARE, SELDOM = 1.0, 0.02, 15.0
"""A range is computed again after so many seconds, or that share of what is left, but at least so often."""
MOVES = 0.05
"""A new range is told when an end of it has moved by more than this share of what is left, or one second."""
UNKNOWN = "null"


class Foreseen(Protocol):
    """What an outlook needs to know of a run, besides what it reports."""

    job_type: str

    @property
    def resumed(self) -> bool:
        """Whether it goes on where an earlier attempt came to."""

    @property
    def planned(self) -> bool:
        """Whether all its stages were named beforehand."""


class Outlook:
    """The outlook of one run; `began` and every `now` are seconds since 1970."""

    def __init__(self, run: Foreseen, began: float, digests: Digests, least_silence: float) -> None:
        self._run = run
        self.timeline = Timeline(began)
        self._digests = digests
        self._least = least_silence
        self._told: tuple[float, float] | None = None
        self._fields: dict[str, str] = {}
        self._next_look = began + FIRST
        self._next_range = 0.0

    @property
    def is_young(self) -> bool:
        """Whether nothing of earlier runs is wanted yet."""
        return self.timeline.at < FIRST

    def look(self, report: Mapping[str, str], now: float) -> dict[str, str]:
        """Take in what the run says, and give what there is to add: `eta` and `stalled`, once there was anything to tell."""
        moved = self.timeline.add(report, now)
        if moved and self._fields.get("stalled"):
            self.timeline.excuse()
            self._fields["stalled"] = ""
            self._next_look = self._next_range = now
        if now >= self._next_look:
            self._next_look = now + EVERY
            lessons = self._digests.lessons(self._run.job_type)
            self._judge(lessons)
            if now >= self._next_range or self._fields.get("stalled"):
                self._foresee(lessons, now)
        return self._fields

    def learn(self, now: float) -> None:
        """The run has completed: keep what it took. One that was taken up again has not shown all of itself."""
        if not self._run.resumed:
            self._digests.learn(self._run.job_type, self.timeline.lesson(now))

    def _judge(self, lessons: tuple[Lesson, ...]) -> None:
        if self.timeline.silent < self._least or self._fields.get("stalled"):
            return
        patient, why = patience(self.timeline, lessons, self._least)
        if self.timeline.silent > patient:
            self._fields["stalled"] = reason(self.timeline, patient, why)

    def _foresee(self, lessons: tuple[Lesson, ...], now: float) -> None:
        found: Left | None = None
        if not self._fields.get("stalled"):
            found = left(self.timeline, lessons, resumed=self._run.resumed, planned=self._run.planned)
        if found is None:
            self._next_range = now + EVERY
            self._told = None
            if "eta" in self._fields:
                self._fields["eta"] = UNKNOWN
            return
        middle = (found.low + found.high) / 2
        self._next_range = now + min(SELDOM, max(EVERY, SHARE * middle))
        ends = (now + found.low, now + found.high)
        worth = max(1.0, MOVES * middle)
        if self._told is None or any(abs(new - old) > worth for new, old in zip(ends, self._told, strict=True)):
            self._told = ends
            earliest, latest = (moment(int(end * 1000) * 1000).isoformat(timespec="milliseconds") for end in ends)
            self._fields["eta"] = to_json({"earliest": earliest, "latest": latest}, "eta")
