"""Replay recorded runs through the code that a heartbeat calls, and score its forecasts."""

from __future__ import annotations

import io
import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime

from benchmarks.eta.recording import BEGIN, Recording
from milepost.run.forecast.forecast import Forecast
from milepost.run.forecast.history import RunHistory, history_key
from milepost.stores.memory.store import MemoryStore
from milepost.stores.sync_bridge import run_sync

EARLIER_RUNS = 10
SAMPLE_FRACTIONS = 19
"""Fractions of a run at which its forecast is scored, every 5 %."""
SAMPLE_INTERVAL, MAX_SAMPLE_INTERVAL = 0.25, 1.9
MIN_SILENCE = 60.0
NAMES = ("milepost", "linear", "tqdm")


@dataclass(slots=True)
class Replayed:
    """A recorded run with what a `Forecast` needs."""

    job_type: str
    resumed: bool = False
    _planned: bool = False


@dataclass(slots=True)
class Score:
    """The score: forecasts asked, given and right; errors are relative to the remaining time."""

    runs: int = 0
    asked: int = 0
    inside: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    errors: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in NAMES})

    @property
    def known(self) -> float:
        """Return the share of moments with a forecast."""
        return len(self.inside) / self.asked if self.asked else 0.0

    @property
    def coverage(self) -> float:
        """Return the share of forecasts that contain the true end."""
        return sum(self.inside) / len(self.inside) if self.inside else 0.0

    def error(self, name: str) -> float:
        """Return the median error of one of `NAMES`, at moments where all have a forecast."""
        return statistics.median(self.errors[name]) if self.errors[name] else float("nan")

    @property
    def width(self) -> float:
        """Return the median width of the ranges, relative to the remaining time."""
        return statistics.median(self.widths) if self.widths else float("nan")


class TqdmBar:
    """tqdm's own estimate of the remaining time, on the clock of a replay."""

    def __init__(self) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread that looks after bars by the real clock
        self._now = 0.0
        self._bar = tqdm(total=1.0, file=io.StringIO(), mininterval=0, miniters=0)
        setattr(self._bar, "_time", lambda: self._now)  # noqa: B010 - its type does not tell of it
        self._bar.start_t = self._bar.last_print_t = 0.0

    def left(self, fraction: float, at: float) -> float | None:
        """Return the remaining seconds after an update."""
        self._now = at
        if fraction > self._bar.n:
            self._bar.update(fraction - self._bar.n)
        shown = self._bar.format_dict
        rate = shown["rate"] or (shown["n"] / at if at else 0.0)
        return float((shown["total"] - shown["n"]) / rate) if rate else None

    def close(self) -> None:
        """Take the bar out of tqdm's set of bars, which another thread may be reading."""
        self._bar.close()


def sample_times(run: Recording) -> Iterator[tuple[float, dict[str, str]]]:
    """Yield the samples that a heartbeat would have taken."""
    step = min(MAX_SAMPLE_INTERVAL, max(SAMPLE_INTERVAL, run.seconds / 400))
    at, sample = 0.0, 0
    while at < run.seconds:
        while sample + 1 < len(run.samples) and run.samples[sample + 1][0] <= at:
            sample += 1
        yield at, run.report(at, sample)
        at += step


class Replay:
    """Replays runs of one type in order: each is forecast from the earlier ones, then added to the history."""

    def __init__(self, job_type: str) -> None:
        self.job_type = job_type
        self.store = MemoryStore(blocking=True)
        self.history = RunHistory(self.store)
        self.flagged = 0
        """The number of runs that were flagged as stalled."""

    def play(self, run: Recording, score: Score | None = None) -> None:
        """Replay a completed run."""
        forecast = self._forecast()
        asked = 0
        stalled = False
        with closing(TqdmBar()) as bar:
            for at, report in sample_times(run):
                said = forecast.tick(report, BEGIN + at)
                stalled = stalled or bool(said.get("stalled"))
                fraction = float(report["progress"])
                tqdm_left = bar.left(fraction, at)
                if (
                    score is not None
                    and asked < SAMPLE_FRACTIONS
                    and at >= run.seconds * (asked + 1) / (SAMPLE_FRACTIONS + 1)
                ):
                    asked += 1
                    score.asked += 1
                    if (range_ := left_of(said, at)) is not None:
                        _mark(score, range_, at, run.seconds - at, fraction, tqdm_left)
        if score is not None:
            score.runs += 1
        self.flagged += stalled
        forecast.record_profile(BEGIN + run.seconds)
        run_sync(self.history.sync(spacing=0))

    def freeze(self, run: Recording, share: float) -> float | None:
        """Replay a run that freezes after a share of it. Return the seconds until it is flagged as stalled, or None."""
        forecast = self._forecast()
        until = run.seconds * share
        last: dict[str, str] = {}
        for at, report in sample_times(run):
            if at >= until:
                break
            last = report
            forecast.tick(report, BEGIN + at)
        at = until
        while at < until + 100_000:
            if forecast.tick(last, BEGIN + at).get("stalled"):
                return at - until
            at += MAX_SAMPLE_INTERVAL
        return None

    def bytes(self) -> int:
        """Return the size of the run history."""
        item = run_sync(self.store.kv_get(history_key(self.job_type)))
        return len(item.value.encode()) if item is not None else 0

    def _forecast(self) -> Forecast:
        return Forecast(Replayed(self.job_type), BEGIN, self.history, MIN_SILENCE)


def left_of(said: dict[str, str], at: float) -> tuple[float, float] | None:
    """Return the remaining seconds that the record would show."""
    shown = json.loads(said.get("eta", "null"))
    if shown is None:
        return None
    low, high = (datetime.fromisoformat(shown[name]).timestamp() - BEGIN - at for name in ("earliest", "latest"))
    return max(0.0, low), high


def _mark(
    score: Score, found: tuple[float, float], at: float, truth: float, fraction: float, tqdm_left: float | None
) -> None:  # fmt: skip
    score.inside.append(found[0] <= truth <= found[1])
    score.widths.append((found[1] - found[0]) / truth)
    if not fraction or tqdm_left is None:
        return
    points = {"milepost": (found[0] + found[1]) / 2, "linear": at * (1 - fraction) / fraction, "tqdm": tqdm_left}
    for name, point in points.items():
        score.errors[name].append(abs(point - truth) / truth)


def evaluate(family: str, runs: Sequence[Recording], earlier: int = EARLIER_RUNS) -> tuple[Score, Replay]:
    """Replay all runs of a family in order; runs with enough history are scored."""
    score, reel = Score(), Replay(family)
    for number, run in enumerate(runs):
        reel.play(run, score if number >= earlier else None)
    return score, reel


def first_runs(family: str, runs: Sequence[Recording]) -> tuple[Score, int]:
    """Replay each run as the first of its type. Return the score and the number flagged as stalled."""
    score, flagged = Score(), 0
    for run in runs:
        reel = Replay(family)
        reel.play(run, score)
        flagged += reel.flagged
    return score, flagged
