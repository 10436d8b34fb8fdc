"""The history of ended jobs over a window of time, computed from the rollups of the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from milepost.core.errors import InvalidInputError
from milepost.core.job import Job
from milepost.core.rollups import RESOLUTIONS, Rollup, assembled, counted_end, seconds_of
from milepost.core.serialization import from_micros
from milepost.core.transitions import TERMINAL
from milepost.stores.protocol import Store

MAX_WINDOW = 366 * 86_400
MAX_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Median and 95th percentile of `count` durations, in seconds, at most 9 % off; None without any."""

    count: int = 0
    p50: float | None = None
    p95: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the quantiles as JSON types."""
        return {"p50": self.p50, "p95": self.p95, "count": self.count}


@dataclass(frozen=True, slots=True)
class HistoryStep:
    """Jobs that ended in one step of the window, which begins at `at`."""

    at: datetime
    completed: int = 0
    failed: int = 0
    cancelled: int = 0


@dataclass(frozen=True, slots=True)
class TypeHistory:
    """Jobs of one type that ended in the window. `duration` leaves out cancelled jobs."""

    job_type: str
    completed: int
    failed: int
    cancelled: int
    duration: Quantiles
    wait: Quantiles


@dataclass(frozen=True, slots=True)
class History:
    """Jobs that ended in a window of time before now: exact counts, by step and by type, and quantiles.

    `complete` is False if the window begins before the oldest rollup that the store keeps.
    """

    window: float
    step: float
    steps: tuple[HistoryStep, ...]
    duration: Quantiles
    wait: Quantiles
    types: tuple[TypeHistory, ...]
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the history as JSON types."""
        return {
            "window": self.window,
            "step": self.step,
            "steps": [{"at": step.at.isoformat(), **_counts(step)} for step in self.steps],
            "wait": self.wait.to_dict(),
            "duration": self.duration.to_dict(),
            "types": [
                {
                    "job_type": one.job_type,
                    **_counts(one),
                    "duration": one.duration.to_dict(),
                    "wait": one.wait.to_dict(),
                }
                for one in self.types
            ],
            "complete": self.complete,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> History:
        """Return the history of what `to_dict` wrote."""
        steps = [HistoryStep(datetime.fromisoformat(s["at"]), *(s[status] for status in TERMINAL)) for s in data["steps"]]  # fmt: skip
        types = [
            TypeHistory(**{**one, "duration": Quantiles(**one["duration"]), "wait": Quantiles(**one["wait"])})
            for one in data["types"]
        ]
        duration, wait = Quantiles(**data["duration"]), Quantiles(**data["wait"])
        return cls(data["window"], data["step"], tuple(steps), duration, wait, tuple(types), data["complete"])


def _counts(ended: HistoryStep | TypeHistory) -> dict[str, int]:
    return {status: getattr(ended, status) for status in TERMINAL}


def check_window(window: float, step: float) -> None:
    """Raise InvalidInputError for a window or a step that cannot be answered."""
    if not 0 < window <= MAX_WINDOW:
        raise InvalidInputError("window", "must be more than 0 and at most a year")
    if step <= 0 or window / step > MAX_STEPS:
        raise InvalidInputError("step", f"must be more than 0, and the window at most {MAX_STEPS} steps")


async def read_history(
    store: Store, window: float, step: float, *, job_type: str | None = None, queue: str | None = None
) -> History:
    """Return the history of the last `window` seconds, in steps of `step` seconds or of the store's resolution.

    Windows of up to two days with steps below an hour have a resolution of a minute, others of an hour. The window ends
    with the present minute or hour.
    """
    check_window(window, step)
    minutes = RESOLUTIONS[False]
    hourly = window * 1_000_000 > minutes.width * minutes.kept or step >= 3600
    now = await store.now()
    begin = now - int(window * 1_000_000)
    found, complete_since = await store.rollups(begin, hourly=hourly)
    wanted = [r for r in found if job_type in (None, r.job_type) and queue in (None, r.queue)]
    return summarise(wanted, now, window, step, hourly=hourly, complete=begin >= complete_since)


def history_of(jobs: Iterable[Job], now: int, window: float, step: float, *, complete: bool) -> History:
    """Return the history that some jobs make, of their last ends. `now` is in microseconds."""
    ends = (counted_end(job.record, {}) for job in jobs)
    counts = Counter(counted for end in ends if end is not None for counted in end)
    found = assembled((), ((*key, count) for key, count in counts.items()), hourly=False)
    return summarise(found, now, window, step, hourly=False, complete=complete)


def summarise(
    rollups: Iterable[Rollup], now: int, window: float, step: float, *, hourly: bool, complete: bool
) -> History:
    """Add up rollups. The window ends with the present minute or hour, so that a step begins and ends with a rollup.

    A step is at least as long as a rollup. One that is not a multiple of it has the rollups whose middle lies in it.
    """
    width = RESOLUTIONS[hourly].width
    step = max(step, width / 1_000_000)
    end = (now // width + 1) * width
    begin, count = end - int(max(window, step) * 1_000_000), max(1, round(window / step))
    steps = [Counter[str]() for _ in range(count)]
    types: dict[str, list[Rollup]] = {}
    for rollup in rollups:
        middle = rollup.at + width // 2
        if middle < begin:
            continue
        steps[min(count - 1, int((middle - begin) / (step * 1_000_000)))].update(rollup.ended)
        types.setdefault(rollup.job_type, []).append(rollup)
    by_type = [_of_type(name, found) for name, found in types.items()]
    by_type.sort(key=lambda one: (-(one.duration.p95 or 0.0), one.job_type))
    every = [rollup for found in types.values() for rollup in found]
    starts = [from_micros(begin + int(number * step * 1_000_000)) for number in range(count)]
    return History(
        window,
        step,
        tuple(HistoryStep(at, *(ended[s] for s in TERMINAL)) for at, ended in zip(starts, steps, strict=True)),
        _durations(every),
        quantiles(rollup.waited for rollup in every),
        tuple(by_type),
        complete,
    )


def _of_type(name: str, rollups: list[Rollup]) -> TypeHistory:
    ended = Counter[str]()
    for rollup in rollups:
        ended.update(rollup.ended)
    waited = quantiles(rollup.waited for rollup in rollups)
    completed, failed, cancelled = (ended[status] for status in TERMINAL)
    return TypeHistory(name, completed, failed, cancelled, _durations(rollups), waited)


def _durations(rollups: Iterable[Rollup]) -> Quantiles:
    return quantiles(ran for rollup in rollups for status, ran in rollup.ran.items() if status != "cancelled")


def quantiles(histograms: Iterable[Mapping[int, int]]) -> Quantiles:
    """Return the quantiles of some histograms together, by nearest rank."""
    total = Counter[int]()
    for histogram in histograms:
        total.update(histogram)
    count = sum(total.values())
    found = []
    for share in (0.5, 0.95) if count else ():
        passed = 0
        for bucket in sorted(total):
            passed += total[bucket]
            if passed > share * count or passed == count:
                found.append(round(seconds_of(bucket), 6))
                break
    return Quantiles(count, *found)
