"""The course of a run, taken from its reports: its parts, their pace and their pauses. Times are seconds.

A part is a stage; stages inside a stage with a total count as that stage. A run without stages, or with too many, is
one part without a name, measured by the fraction of the whole. A completed run is kept as a `RunProfile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from milepost.core.serialization import from_json

STEPS = 10
"""The number of points of a part's curve: when each tenth of it was done."""
MAX_PARTS = 12
MAX_POINTS = 64
MAX_SILENCE_STEP = 2.0
"""Seconds between two reports that count at most as time without progress: a frozen process or an outage delays reports,
not the work."""


class PartProfile(NamedTuple):
    """A part of a completed run.

    `total` is the number of units if known, `span` the time until the next part began, `curve` when each tenth was done
    (seconds from its start; empty if nothing was counted), `gap` the longest time without progress.
    """

    name: str
    total: float | None
    span: float
    curve: tuple[float, ...]
    gap: float


class RunProfile(NamedTuple):
    """A completed run. `head` is the time before its first part."""

    seconds: float
    head: float
    parts: tuple[PartProfile, ...]


class Part:
    """A part of a run in progress."""

    __slots__ = ("began", "counts", "crossings", "fraction", "gap", "lost", "moved", "name", "origin", "total")

    def __init__(self, name: str, began: float) -> None:
        self.name = name
        self.began = began
        self.total: float | None = None
        self.fraction = 0.0
        self.moved = began
        self.counts = False
        self.crossings: list[float] = []
        self.origin: tuple[float, float] | None = None
        """The time and fraction of the first report: a resumed run does not begin at 0."""
        self.gap = 0.0
        self.lost = 0.0
        """Time in which it was stalled, which is excluded from its pace."""

    @property
    def measured(self) -> bool:
        """Return whether the progress of the part is known."""
        return self.counts and (self.total is not None or self.name == "")

    def see(self, fraction: float, at: float) -> None:
        """Take in the fraction at a time; between two reports it is interpolated."""
        if self.origin is None:
            self.origin = (at, fraction)
        if fraction <= self.fraction:
            return
        before, since = self.fraction, self.moved
        while len(self.crossings) < STEPS and (step := (len(self.crossings) + 1) / STEPS) <= fraction + 1e-9:
            share = (step - before) / (fraction - before)
            self.crossings.append(max(0.0, since + share * (at - since) - self.began))
        self.fraction, self.moved = fraction, at

    def profile(self, until: float) -> PartProfile:
        """Return the profile of the part, which ended at that time."""
        span = max(0.0, until - self.began)
        curve = (*self.crossings, *[span] * (STEPS - len(self.crossings))) if self.measured else ()
        return PartProfile(self.name, self.total, span, tuple(min(at, span) for at in curve), self.gap)


class Timeline:
    """The course of one run. `add` its reports; all times are seconds since it began."""

    def __init__(self, began: float) -> None:
        self.began = began
        """Seconds since 1970."""
        self.at = 0.0
        self.whole = Part("", 0.0)
        self.parts: list[Part] = []
        self.points: list[tuple[float, float]] = []
        """(time, fraction of the whole), thinned to few."""
        self.weighted = True
        """Whether the fraction of the whole counts all that is to come, as far as its code has declared it."""
        self.has_weights = False
        """Whether its code gave a stage a weight."""
        self.silent = 0.0
        self.lost = 0.0
        self._paused = (self.whole, 0.0)
        self._known: dict[tuple[str, str], Part] = {}
        self._stages = ""
        self._mark: tuple[object, ...] = ()
        self._spacing = 0.0

    @property
    def part(self) -> Part:
        """Return the current part."""
        return self.parts[-1] if 0 < len(self.parts) <= MAX_PARTS else self.whole

    def add(self, report: Mapping[str, str], now: float) -> bool:
        """Take in a report (`now` in seconds since 1970); return whether there was progress."""
        at = max(self.at, now - self.began)
        self.silent += min(at - self.at, MAX_SILENCE_STEP)
        self.at = at
        part = self.part
        text = report.get("stages", "")
        if text != self._stages:
            self._stages = text
            self._enter(from_json(text))
        fraction = float(report.get("progress", "0"))
        # If nothing is counted, a new message is the only sign of progress.
        mark = (fraction, text, "" if self.part.counts else report.get("message"))
        moved = mark != self._mark
        self._mark = mark
        if moved:
            part.gap = max(part.gap, self.silent)
            self._paused = (part, self.silent)
            self.silent = 0.0
        if fraction > self.whole.fraction:
            self.whole.counts = True
            self._point(at, fraction)
        self.whole.see(fraction, at)
        return moved

    def exclude_pause(self) -> None:
        """Exclude the pause that has just ended from the pace."""
        part, seconds = self._paused
        part.lost += seconds
        self.lost += seconds

    def _point(self, at: float, fraction: float) -> None:
        if self.points and at - self.points[-1][0] < self._spacing:
            return
        self.points.append((at, fraction))
        if len(self.points) > MAX_POINTS:
            self.points = self.points[::2]
            self._spacing = 2 * at / MAX_POINTS

    def _enter(self, stages: list[dict[str, Any]]) -> None:
        """Update the parts from the reported stages; new stages are new parts."""
        counted: set[str] = set()  # stages with a total, and those inside them
        tops = [stage for stage in stages if not stage.get("parent")]
        self.has_weights = any(stage.get("weight") is not None for stage in tops)
        self.weighted = all(stage.get("weight") is not None for stage in tops) or (
            len(tops) == 1 and bool(tops[0].get("total"))
        )
        for stage in stages:
            inside = stage.get("parent") in counted
            if inside or stage.get("total"):
                counted.add(stage["name"])
            if inside:
                continue
            key = (stage["name"], stage["started_at"])
            part = self._known.get(key)
            if part is None:
                began = datetime.fromisoformat(stage["started_at"]).timestamp() - self.began
                part = self._known[key] = Part(self._name(stage["name"]), min(max(began, 0.0), self.at))
                self.parts.append(part)
            done, total = float(stage.get("done", 0)), stage.get("total")
            part.counts = part.counts or done > 0
            part.total = float(total) if total else None
            if part.total is not None:
                fraction = 1.0 if stage.get("ended_at") else min(1.0, done / part.total)
                part.see(fraction, self._moment(stage, part) if fraction == 1.0 else self.at)

    def _moment(self, stage: Mapping[str, Any], part: Part) -> float:
        """Return when a stage was done: its end, if it was reported."""
        if not stage.get("ended_at"):
            return self.at
        ended = datetime.fromisoformat(stage["ended_at"]).timestamp() - self.began
        return min(max(ended, part.moved), max(self.at, part.moved))

    def _name(self, name: str) -> str:
        """Return a unique name: stages of the same name are numbered."""
        same = sum(part.name == name or part.name.startswith(f"{name} #") for part in self.parts)
        return f"{name} #{same + 1}" if same else name

    def profile(self, now: float) -> RunProfile:
        """Return the profile of the run, which has ended now (seconds since 1970)."""
        until = max(self.at, now - self.began)
        last = self.part
        last.gap = max(last.gap, self.silent + min(until - self.at, MAX_SILENCE_STEP))
        if last is self.whole:
            return RunProfile(until, 0.0, (self.whole.profile(until),))
        ends = [part.began for part in self.parts[1:]] + [until]
        return RunProfile(
            until, self.parts[0].began, tuple(part.profile(end) for part, end in zip(self.parts, ends, strict=True))
        )
