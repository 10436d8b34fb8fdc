"""How a run went, or goes: its parts, how fast each moves, and how long it stood still. Reads what a run reports, as text.

A part is a stage; those inside a stage that has a total of its own are counted in that stage. A run without stages, or
with too many, is one part without a name whose measure is the fraction of the whole. What is kept of a run that has
ended is a `Lesson`. Owns no arithmetic of estimates and knows no store. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from milepost.core.encoding import from_json
from milepost.tracking.stages import LOOP

STEPS = 10
"""A part's curve says when each tenth of it was done."""
PARTS_MAX = 12
POINTS_MAX = 64
FROZEN = 2.0
"""Silence grows by at most so much between two looks: a process that was stopped, or a store that did not answer, has
kept the looks apart, and that says nothing about the work."""


class PartLesson(NamedTuple):
    """A part of an ended run: its units if they were known, how long it took until the next one began, when each tenth
    of it was done (seconds from its begin; empty where nothing was counted), and the longest time without progress."""

    name: str
    total: float | None
    span: float
    curve: tuple[float, ...]
    gap: float


class Lesson(NamedTuple):
    """What is kept of a completed run. `head` is the time before its first part."""

    seconds: float
    head: float
    parts: tuple[PartLesson, ...]


class Part:
    """A part of a run that goes on."""

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
        """The first look: when, and how far the part was. A run that was taken up again does not begin at nothing."""
        self.gap = 0.0
        self.lost = 0.0
        """Time in which it had stalled: that is no part of its pace."""

    @property
    def measured(self) -> bool:
        """Whether it is known how far the part is."""
        return self.counts and (self.total is not None or self.name == "")

    def see(self, fraction: float, at: float) -> None:
        """Take in how far the part is; between two looks it is taken to have moved evenly."""
        if self.origin is None:
            self.origin = (at, fraction)
        if fraction <= self.fraction:
            return
        before, since = self.fraction, self.moved
        while len(self.crossings) < STEPS and (step := (len(self.crossings) + 1) / STEPS) <= fraction + 1e-9:
            share = (step - before) / (fraction - before)
            self.crossings.append(max(0.0, since + share * (at - since) - self.began))
        self.fraction, self.moved = fraction, at

    def lesson(self, until: float) -> PartLesson:
        """What is kept of it, when the next part, or the end, came at that time."""
        span = max(0.0, until - self.began)
        curve = (*self.crossings, *[span] * (STEPS - len(self.crossings))) if self.measured else ()
        return PartLesson(self.name, self.total, span, tuple(min(at, span) for at in curve), self.gap)


class Timeline:
    """The course of one run. `add` what it says; all times are seconds since it began."""

    def __init__(self, began: float) -> None:
        self.began = began
        """Seconds since 1970."""
        self.at = 0.0
        self.whole = Part("", 0.0)
        self.parts: list[Part] = []
        self.points: list[tuple[float, float]] = []
        """(time, fraction of the whole), thinned to few."""
        self.weighted = True
        """Whether the fraction of the whole counts all that is to come, as far as its code has told."""
        self.silent = 0.0
        self.lost = 0.0
        self._paused = (self.whole, 0.0)
        self._known: dict[tuple[str, str], Part] = {}
        self._stages = ""
        self._mark: tuple[object, ...] = ()
        self._spacing = 0.0

    @property
    def part(self) -> Part:
        """Where the run is now."""
        return self.parts[-1] if 0 < len(self.parts) <= PARTS_MAX else self.whole

    def add(self, report: Mapping[str, str], now: float) -> bool:
        """Take in a report at a time (seconds since 1970); whether the run has moved."""
        at = max(self.at, now - self.began)
        self.silent += min(at - self.at, FROZEN)
        self.at = at
        part = self.part
        text = report.get("stages", "")
        if text != self._stages:
            self._stages = text
            self._enter(from_json(text))
        fraction = float(report.get("progress", "0"))
        # Where nothing is counted, a new message is the only sign that there can be.
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

    def excuse(self) -> None:
        """The pause that has just ended was no part of the work."""
        part, seconds = self._paused
        part.lost += seconds
        self.lost += seconds

    def _point(self, at: float, fraction: float) -> None:
        if self.points and at - self.points[-1][0] < self._spacing:
            return
        self.points.append((at, fraction))
        if len(self.points) > POINTS_MAX:
            self.points = self.points[::2]
            self._spacing = 2 * at / POINTS_MAX

    def _enter(self, stages: list[dict[str, Any]]) -> None:
        """Look at the stages: new ones are new parts, the others may have moved."""
        counted: set[str] = set()  # stages that have a total, and those within them
        tops = [stage for stage in stages if not stage.get("parent")]
        self.weighted = all(stage.get("weight") is not None for stage in tops) or (
            len(tops) == 1 and tops[0]["name"] == LOOP
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
        """When a stage was done: its end, if that was told."""
        if not stage.get("ended_at"):
            return self.at
        ended = datetime.fromisoformat(stage["ended_at"]).timestamp() - self.began
        return min(max(ended, part.moved), max(self.at, part.moved))

    def _name(self, name: str) -> str:
        """Stages of one name are told apart by their number."""
        same = sum(part.name == name or part.name.startswith(f"{name} #") for part in self.parts)
        return f"{name} #{same + 1}" if same else name

    def lesson(self, now: float) -> Lesson:
        """What is to be kept of the run, which has ended now (seconds since 1970)."""
        until = max(self.at, now - self.began)
        last = self.part
        last.gap = max(last.gap, self.silent + min(until - self.at, FROZEN))
        if last is self.whole:
            return Lesson(until, 0.0, (self.whole.lesson(until),))
        ends = [part.began for part in self.parts[1:]] + [until]
        return Lesson(
            until, self.parts[0].began, tuple(part.lesson(end) for part, end in zip(self.parts, ends, strict=True))
        )
