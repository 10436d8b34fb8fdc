"""The forecast of one run: when it will end, and whether it has stalled. The heartbeat updates it and sends the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from milepost.core.serialization import from_micros, to_json
from milepost.run.forecast.eta import Remaining, remaining
from milepost.run.forecast.history import RunHistory
from milepost.run.forecast.learned_progress import learned_progress
from milepost.run.forecast.profile import RunProfile, Timeline
from milepost.run.forecast.stall import reason, stall_threshold

if TYPE_CHECKING:
    from milepost.run.run import Run


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
        planned = self._run.planned
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
            found = remaining(self.timeline, profiles, resumed=self._run.resumed, planned=self._run.planned)
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
