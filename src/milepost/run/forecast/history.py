"""The history of each job type in the key-value store: the profiles of its newest completed runs.

It has at most 24 runs and 16 KiB. It is advisory and can be rebuilt: what cannot be read is ignored, and concurrent
writers lose nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from milepost.core.errors import StoreError
from milepost.core.serialization import from_json, to_json
from milepost.stores.clock import SYSTEM_CLOCK, Clock
from milepost.stores.protocol import KeyValueStore

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


MAX_RUNS = 24
MAX_BYTES = 16 * 1024
HISTORY_TTL = 90 * 86_400.0
"""Seconds that the history of a type is kept after its last run."""
REFRESH_INTERVAL = 60.0
"""Seconds after which a history that is in use is read again."""
BUSY_WRITE_INTERVAL, IDLE_WRITE_INTERVAL = 5.0, 1.0
"""Seconds between two writes for one type, with and without active runs."""
MAX_TYPES = 500
FORMAT_VERSION = 1
MAX_WRITE_ATTEMPTS = 3


def history_key(job_type: str) -> str:
    """Return the key of the history of a type."""
    return f"digest/{job_type}"


class RunHistory:
    """The histories that one process knows. `record_profile` is thread-safe; `sync` is for one caller at a time."""

    def __init__(self, store: KeyValueStore, clock: Clock = SYSTEM_CLOCK) -> None:
        self._monotonic = clock.monotonic
        self._store = store
        self._known: dict[str, tuple[RunProfile, ...]] = {}
        self._read_at: dict[str, float] = {}
        self._written_at: dict[str, float] = {}
        self._waiting: dict[str, list[RunProfile]] = {}
        self._lock = threading.Lock()

    def profiles(self, job_type: str) -> tuple[RunProfile, ...]:
        """Return the known profiles of a type, the newest last, without a request to the store."""
        return self._known.get(job_type, ())

    def record_profile(self, job_type: str, profile: RunProfile) -> None:
        """Add the profile of a completed run, to be written by the next `sync`. Never waits."""
        with self._lock:
            waiting = self._waiting.setdefault(job_type, [])
            waiting.append(profile)
            del waiting[:-MAX_RUNS]

    def record_short_run(self, job_type: str, seconds: float) -> None:
        """Add a run that completed before its first beat, unless one is waiting to be written already."""
        if job_type not in self._waiting:
            self.record_profile(job_type, RunProfile(seconds, 0.0, (PartProfile("", None, seconds, (), seconds),)))

    async def sync(self, job_types: Iterable[str] = (), *, spacing: float = BUSY_WRITE_INTERVAL) -> None:
        """Read the histories of `job_types` that are out of date, and write new profiles.

        That takes one and two round trips for each type. `spacing` is the least time between two writes for one type,
        in seconds.
        """
        now = self._monotonic()
        for job_type in job_types:
            if now >= self._read_at.get(job_type, 0.0):
                self._remember(job_type, await read_profiles(self._store, job_type))
        if self._waiting:
            for job_type in list(self._waiting):
                if now - self._written_at.get(job_type, -BUSY_WRITE_INTERVAL) >= spacing:
                    await self._write(job_type)

    def _remember(self, job_type: str, profiles: tuple[RunProfile, ...]) -> None:
        if len(self._known) >= MAX_TYPES and job_type not in self._known:
            for kept in (self._known, self._read_at, self._written_at):
                kept.clear()
        self._known[job_type] = profiles
        self._read_at[job_type] = self._monotonic() + REFRESH_INTERVAL

    async def _write(self, job_type: str) -> None:
        with self._lock:
            new = self._waiting.pop(job_type, [])
        try:
            for _ in range(MAX_WRITE_ATTEMPTS):
                item = await self._store.kv_get(history_key(job_type))
                profiles = (*(decode_history(item.value) if item is not None else ()), *new)[-MAX_RUNS:]
                version = item.version if item is not None else 0
                if (
                    await self._store.kv_put(
                        history_key(job_type), encode_history(profiles), version=version, ttl=HISTORY_TTL
                    )
                    is not None
                ):
                    self._remember(job_type, profiles)
                    self._written_at[job_type] = self._monotonic()
                    return
        except StoreError:
            self._requeue(job_type, new)
            raise
        self._requeue(job_type, new)

    def _requeue(self, job_type: str, new: list[RunProfile]) -> None:
        """Keep profiles that could not be written for the next `sync`."""
        with self._lock:
            self._waiting[job_type] = (new + self._waiting.get(job_type, []))[-MAX_RUNS:]


async def read_profiles(store: KeyValueStore, job_type: str) -> tuple[RunProfile, ...]:
    """Return the profiles of a type, the newest last; empty if there are none."""
    item = await store.kv_get(history_key(job_type))
    return decode_history(item.value) if item is not None else ()


def encode_history(profiles: Sequence[RunProfile]) -> str:
    """Return profiles as text, without the oldest ones if it would be too large.

    First the names, then each run: its seconds, its head, and for each part the index of its name, total, span, gap,
    and the curve in thousandths of the span.
    """
    names: dict[str, int] = {}
    runs = [
        [
            _short(profile.seconds),
            _short(profile.head),
            [
                [names.setdefault(one.name, len(names)), one.total, _short(one.span), _short(one.gap)]
                + [round(1000 * at / one.span) if one.span else 0 for at in one.curve]
                for one in profile.parts
            ],
        ]
        for profile in profiles
    ]
    text = to_json({"form": FORMAT_VERSION, "names": list(names), "runs": runs}, "digest", 1024 * 1024)
    return text if len(text.encode()) <= MAX_BYTES or len(profiles) < 2 else encode_history(profiles[1:])


def decode_history(text: str) -> tuple[RunProfile, ...]:
    """Return the profiles of a stored history; none if it has another format."""
    try:
        data = from_json(text)
        names, form = data["names"], data["form"]
        if form != FORMAT_VERSION:
            return ()
        return tuple(
            RunProfile(float(seconds), float(head), tuple(_part(names, *one) for one in parts))
            for seconds, head, parts in data["runs"]
        )
    except (ValueError, TypeError, KeyError, IndexError):
        return ()


def _part(names: list[str], name: int, total: float | None, span: float, gap: float, *curve: int) -> PartProfile:
    if curve and len(curve) != STEPS:
        raise ValueError(curve)
    return PartProfile(
        str(names[name]), None if total is None else float(total), float(span), tuple(at * span / 1000 for at in curve),
        float(gap),
    )  # fmt: skip


def _short(seconds: float) -> float:
    """Round to four digits and whole milliseconds."""
    return round(float(f"{seconds:.4g}"), 3)
