"""Replay recorded runs through the code that a pulse calls, and ask how true was what it said. Prints nothing."""

from __future__ import annotations

import io
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from benchmarks.eta.recording import BEGIN, Recording
from milepost.stores.driving import drive
from milepost.stores.memory import MemoryStore
from milepost.tracking.digests import Digests, key_of
from milepost.tracking.outlook import Outlook

EARLIER = 10
ASKED = 19
"""A run is asked after each twentieth of it."""
LOOK, LOOK_MOST = 0.25, 1.9
LEAST_SILENCE = 60.0
NAMES = ("milepost", "linear", "tqdm")


@dataclass(slots=True)
class Replayed:
    """A recorded run as far as an `Outlook` needs it."""

    job_type: str
    resumed: bool = False
    planned: bool = False


@dataclass(slots=True)
class Score:
    """What became of the answers: how many were asked, were known, and held the truth; errors are relative to what was left."""

    runs: int = 0
    asked: int = 0
    inside: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    errors: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in NAMES})

    @property
    def known(self) -> float:
        """The share of the questions that were answered."""
        return len(self.inside) / self.asked if self.asked else 0.0

    @property
    def coverage(self) -> float:
        """The share of the answers that held the truth."""
        return sum(self.inside) / len(self.inside) if self.inside else 0.0

    def error(self, name: str) -> float:
        """The median error of one of `NAMES`, at the moments at which all had an answer."""
        return statistics.median(self.errors[name]) if self.errors[name] else float("nan")

    @property
    def width(self) -> float:
        """The median width of the ranges, relative to what was left."""
        return statistics.median(self.widths) if self.widths else float("nan")


class TqdmBar:
    """What tqdm itself says is left of a bar, on the clock of a replay."""

    def __init__(self) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread that looks after bars by the real clock
        self._now = 0.0
        self._bar = tqdm(total=1.0, file=io.StringIO(), mininterval=0, miniters=0)
        setattr(self._bar, "_time", lambda: self._now)  # noqa: B010 - its type does not tell of it
        self._bar.start_t = self._bar.last_print_t = 0.0

    def left(self, fraction: float, at: float) -> float | None:
        """Seconds that are left after an update."""
        self._now = at
        if fraction > self._bar.n:
            self._bar.update(fraction - self._bar.n)
        shown = self._bar.format_dict
        rate = shown["rate"] or (shown["n"] / at if at else 0.0)
        return float((shown["total"] - shown["n"]) / rate) if rate else None


def looks(run: Recording) -> Iterator[tuple[float, dict[str, str]]]:
    """What a pulse would have seen of a run, look by look."""
    step = min(LOOK_MOST, max(LOOK, run.seconds / 400))
    at, sample = 0.0, 0
    while at < run.seconds:
        while sample + 1 < len(run.samples) and run.samples[sample + 1][0] <= at:
            sample += 1
        yield at, run.report(at, sample)
        at += step


class Reel:
    """Runs of one type, one after the other: each is foretold from those before it, and then learned."""

    def __init__(self, job_type: str) -> None:
        self.job_type = job_type
        self.store = MemoryStore(blocking=True)
        self.digests = Digests(self.store)
        self.flagged = 0
        """How many of the runs were called stalled."""

    def play(self, run: Recording, score: Score | None = None) -> None:
        """Replay a run, which has completed."""
        outlook = self._outlook()
        bar = TqdmBar()
        asked = 0
        stalled = False
        for at, report in looks(run):
            said = outlook.look(report, BEGIN + at)
            stalled = stalled or bool(said.get("stalled"))
            fraction = float(report["progress"])
            tqdm_left = bar.left(fraction, at)
            if score is not None and asked < ASKED and at >= run.seconds * (asked + 1) / (ASKED + 1):
                asked += 1
                score.asked += 1
                if (range_ := left_of(said, at)) is not None:
                    _mark(score, range_, at, run.seconds - at, fraction, tqdm_left)
        if score is not None:
            score.runs += 1
        self.flagged += stalled
        outlook.learn(BEGIN + run.seconds)
        drive(self.digests.tend(spacing=0))

    def freeze(self, run: Recording, share: float) -> float | None:
        """Replay a run that stands still for ever after a share of it: how long until it is called stalled; None: never."""
        outlook = self._outlook()
        until = run.seconds * share
        last: dict[str, str] = {}
        for at, report in looks(run):
            if at >= until:
                break
            last = report
            outlook.look(report, BEGIN + at)
        at = until
        while at < until + 100_000:
            if outlook.look(last, BEGIN + at).get("stalled"):
                return at - until
            at += LOOK_MOST
        return None

    def bytes(self) -> int:
        """How large the digest has become."""
        item = drive(self.store.shelf_get(key_of(self.job_type)))
        return len(item.value.encode()) if item is not None else 0

    def _outlook(self) -> Outlook:
        return Outlook(Replayed(self.job_type), BEGIN, self.digests, LEAST_SILENCE)


def left_of(said: dict[str, str], at: float) -> tuple[float, float] | None:
    """The seconds that are left by what a run's record would show."""
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


def evaluate(family: str, runs: Sequence[Recording], earlier: int = EARLIER) -> tuple[Score, Reel]:
    """Play all runs of a family in their order; those with enough before them count."""
    score, reel = Score(), Reel(family)
    for number, run in enumerate(runs):
        reel.play(run, score if number >= earlier else None)
    return score, reel


def first_runs(family: str, runs: Sequence[Recording]) -> tuple[Score, int]:
    """Play each run as the first of its type; the score, and how many were called stalled."""
    score, flagged = Score(), 0
    for run in runs:
        reel = Reel(family)
        reel.play(run, score)
        flagged += reel.flagged
    return score, flagged
