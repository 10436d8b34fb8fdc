"""The forecast of one run: when it will end, and whether it has stalled. The heartbeat updates it and sends the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from milepost.core.activity import duration, stated_duration
from milepost.core.serialization import from_micros, to_json
from milepost.run.forecast.eta import Remaining, remaining
from milepost.run.forecast.history import RunHistory, RunProfile, Timeline
from milepost.run.stages import RUNNING_MOST

if TYPE_CHECKING:
    from milepost.run.run import Run


RECENT_RUNS = 10
MIN_RUNS = 3
MAX_NAMES = 20
"""Stages with more different names than this in the recent runs are named after items, and nothing is learned from them."""


def learned_progress(timeline: Timeline, profiles: Sequence[RunProfile]) -> float | None:
    """Return how far a run is by the stages of earlier runs; None where too few of them went the same way."""
    parts = timeline.parts
    if not parts or timeline.has_weights:
        return None
    shares = learned_shares([part.name for part in parts], profiles)
    if shares is None:
        return None
    done = sum(shares[: len(parts) - 1]) + shares[len(parts) - 1] * parts[-1].fraction
    return min(RUNNING_MOST, done)


def learned_shares(names: Sequence[str], profiles: Sequence[RunProfile]) -> list[float] | None:
    """Return the mean share of the time of each stage, for the most common way on from the stages so far."""
    recent = profiles[-RECENT_RUNS:]
    if len({part.name for profile in recent for part in profile.parts}) > MAX_NAMES:
        return None
    begun = tuple(names)
    ways = Counter(way for profile in recent if (way := _names(profile))[: len(begun)] == begun)
    if not ways:
        return None
    way, count = ways.most_common(1)[0]
    if count < MIN_RUNS or len(way) < 2:  # a single stage is the whole, which needs no learning
        return None
    same = [profile for profile in recent if _names(profile) == way]
    spans = [sum(profile.parts[at].span for profile in same) for at in range(len(way))]
    whole = sum(spans)
    return [span / whole for span in spans] if whole > 0 else None


def _names(profile: RunProfile) -> tuple[str, ...]:
    return tuple(part.name for part in profile.parts)


OWN_PAUSE_FACTOR = 4.0
"""How many times the longest pause of the run itself a silence must last."""
UNKNOWN_FACTOR = 10.0
"""The threshold in units of the minimum, in a stage without history that counts its units; six times more if it does
not.
"""


def stall_threshold(timeline: Timeline, profiles: Sequence[RunProfile], least: float) -> tuple[float, str]:
    """Return how long a run may make no progress in its stage before it counts as stalled, and the reason in words.

    At least `least`. Three times the longest pause of earlier runs in that stage, and more the fewer they are; longer
    if this run is larger than they were.
    """
    part = timeline.part
    own = OWN_PAUSE_FACTOR * part.gap
    met = [(profile, one) for profile in profiles for one in profile.parts if one.name == part.name]
    if not met:
        return max(own, least * UNKNOWN_FACTOR * (1.0 if part.counts else 6.0)), "no earlier runs"
    longest = max(one.gap for _, one in met)
    larger = (part.total or 0.0) / max([1.0, *(one.total or 0.0 for _, one in met)])
    later = part.began / max([1.0, *(_begin(profile, part.name) for profile, _ in met)])
    known = longest * max(1.0, larger, later) * (3.0 + 6.0 / len(met))
    runs = f"last {len(met)} runs" if len(met) > 1 else "last run"
    return max(least, own, known), f"longest pause in the {runs}: {duration(longest)}"


def _begin(profile: RunProfile, name: str) -> float:
    begin = profile.head
    for one in profile.parts:
        if one.name == name:
            break
        begin += one.span
    return begin


def reason(timeline: Timeline, threshold: float, why: str) -> str:
    """Return the reason of a stall as people read it."""
    where = timeline.part.name
    return f"No progress for more than {stated_duration(threshold)}{f' in {where}' if where else ''} ({why})"


MIN_FORECAST_AGE = 1.0
"""Seconds before which there is no forecast and no history is read: most runs are short."""
MIN_RANGE_INTERVAL, RANGE_INTERVAL_SHARE, MAX_RANGE_INTERVAL = 1.0, 0.02, 15.0
"""A range is computed again after this share of the remaining time, within these limits in seconds."""
MIN_RANGE_CHANGE = 0.05
"""A new range is reported if an end of it has moved by more than this share of the remaining time, or one second."""
UNKNOWN = "null"


class Forecast:
    """The forecast of one run; `began` and every `now` are seconds since 1970."""

    def __init__(self, run: Run, began: float, history: RunHistory, min_silence: float) -> None:
        self._run = run
        self.timeline = Timeline(began)
        self._history = history
        self._least = min_silence
        self._last_range: tuple[float, float] | None = None
        self._fields: dict[str, str] = {}
        self._next_read = began + MIN_FORECAST_AGE
        self._next_range = 0.0

    @property
    def is_young(self) -> bool:
        """Return whether the run is too young for a forecast."""
        return self.timeline.at < MIN_FORECAST_AGE

    def tick(self, report: Mapping[str, str], now: float) -> dict[str, str]:
        """Add the report of the run; return the fields to send with it: `eta`, `stalled`, and the learned `progress`."""
        moved = self.timeline.add(report, now)
        self._learn_progress()
        if moved and self._fields.get("stalled"):
            self.timeline.exclude_pause()
            self._fields["stalled"] = ""
            self._next_read = self._next_range = now
        if now >= self._next_read:
            self._next_read = now + MIN_RANGE_INTERVAL
            profiles = self._history.profiles(self._run.job_type)
            self._check_stall(profiles)
            if now >= self._next_range or self._fields.get("stalled"):
                self._update_range(profiles, now)
        return self._fields

    def record_profile(self, now: float) -> None:
        """Keep the profile of a completed run. A resumed run is left out, since it has not shown all of the work."""
        if not self._run.resumed:
            self._history.record_profile(self._run.job_type, self.timeline.profile(now))

    def _learn_progress(self) -> None:
        """Replace the run's own fraction by one learned from earlier runs, while it has the same stages as they had."""
        planned = self._run._planned
        found = None if planned else learned_progress(self.timeline, self._history.profiles(self._run.job_type))
        if found is None:
            self._fields.pop("progress", None)
            self._fields.pop("progress_known", None)
        else:
            self._fields |= {"progress": repr(round(found, 6)), "progress_known": "1"}

    def _check_stall(self, profiles: tuple[RunProfile, ...]) -> None:
        if self.timeline.silent < self._least or self._fields.get("stalled"):
            return
        threshold, why = stall_threshold(self.timeline, profiles, self._least)
        if self.timeline.silent > threshold:
            self._fields["stalled"] = reason(self.timeline, threshold, why)

    def _update_range(self, profiles: tuple[RunProfile, ...], now: float) -> None:
        found: Remaining | None = None
        if not self._fields.get("stalled"):
            found = remaining(self.timeline, profiles, resumed=self._run.resumed, planned=self._run._planned)
        if found is None:
            self._next_range = now + MIN_RANGE_INTERVAL
            self._last_range = None
            if "eta" in self._fields:
                self._fields["eta"] = UNKNOWN
            return
        middle = (found.low + found.high) / 2
        self._next_range = now + min(MAX_RANGE_INTERVAL, max(MIN_RANGE_INTERVAL, RANGE_INTERVAL_SHARE * middle))
        ends = (now + found.low, now + found.high)
        worth = max(1.0, MIN_RANGE_CHANGE * middle)
        if self._last_range is None or any(
            abs(new - old) > worth for new, old in zip(ends, self._last_range, strict=True)
        ):
            self._last_range = ends
            earliest, latest = (from_micros(int(end * 1000) * 1000).isoformat(timespec="milliseconds") for end in ends)
            self._fields["eta"] = to_json({"earliest": earliest, "latest": latest}, "eta")
