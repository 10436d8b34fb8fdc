"""Statistics of many jobs: history and quantiles over a window, failure groups, and the longest wait."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.job import Job
from milepost.core.rollups import RESOLUTIONS, Rollup, assembled, counted_end, queue_wait, seconds_of
from milepost.core.serialization import from_micros, to_micros
from milepost.core.transitions import TERMINAL
from milepost.query.filters import failure_group
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
    counts = Counter(counted for job in jobs if "completed" in job.record for counted in counted_end(job.record))
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


def nearest_rank(count: int, percent: int) -> int:
    """Return the rank of a percentile among that many values, 1 for the smallest: the median of two is the lower one."""
    return -(-percent * count // 100)


def quantiles(histograms: Iterable[Mapping[int, int]]) -> Quantiles:
    """Return the quantiles of some histograms together, by nearest rank."""
    total = Counter[int]()
    for histogram in histograms:
        total.update(histogram)
    count = sum(total.values())
    found = []
    for percent in (50, 95) if count else ():
        passed = 0
        for bucket in sorted(total):
            passed += total[bucket]
            if passed >= nearest_rank(count, percent):
                found.append(round(seconds_of(bucket), 6))
                break
    return Quantiles(count, *found)


@dataclass(slots=True)
class FailureGroup:
    """Failed jobs with one cause. `message` and `job_id` are those of the newest job."""

    group: str
    first_at: datetime
    last_at: datetime
    message: str | None
    job_id: str
    count: int = 0
    job_types: set[str] = field(default_factory=set)

    @property
    def q(self) -> str:
        """The filter that selects these jobs."""
        if re.search(r'[\s"\\]', self.group) is None:
            return f"status:failed failure:{self.group}"
        escaped = re.sub(r'(["\\])', r"\\\1", self.group)
        return f'status:failed failure:"{escaped}"'

    def to_dict(self) -> dict[str, Any]:
        """Return the group as JSON types, with its exception type, its frame and the filter that selects it."""
        kind, _, frame = self.group.partition("@")
        return {
            "group": self.group,
            "type": kind,
            "frame": frame or None,
            "count": self.count,
            "first_at": self.first_at.isoformat(),
            "last_at": self.last_at.isoformat(),
            "message": self.message,
            "job_id": self.job_id,
            "job_types": sorted(self.job_types),
            "q": self.q,
        }


def failure_groups(jobs: Iterable[Job]) -> list[FailureGroup]:
    """Return groups of failed jobs, the largest first. Jobs that have not failed are ignored."""
    groups: dict[str, FailureGroup] = {}
    for job in jobs:
        name = failure_group(job)
        if name is None:
            continue
        at = job.completed_at or job.created_at
        group = groups.setdefault(name, FailureGroup(name, at, at, job.error, job.job_id))
        if at > group.last_at:
            group.last_at, group.message, group.job_id = at, job.error, job.job_id
        group.first_at = min(group.first_at, at)
        group.count += 1
        group.job_types.add(job.job_type)
    return sorted(groups.values(), key=lambda group: (-group.count, group.group))


MAX_READ = 100
"""How many of the oldest pending jobs are read. Jobs whose start time has not come do not wait yet."""


class LongestWait(NamedTuple):
    """A pending job, and since when it could have started."""

    job: Job
    since: datetime


def longest_wait(pending: Iterable[Job], now: datetime) -> LongestWait | None:
    """Return the job that has waited longest among some pending jobs, or None if none of them could start yet."""
    waits = [LongestWait(job, since) for job in pending if (since := _waiting_since(job)) is not None and since <= now]
    return min(waits, key=lambda wait: wait.since, default=None)


def _waiting_since(job: Job) -> datetime | None:
    """Return when a job was created, may start at the earliest, or was queued again; the latest of these."""
    ended = job.attempts[-1].ended_at if job.attempts else None
    return max((at for at in (job.created_at, job.not_before, ended) if at is not None), default=None)


def wait(job: Job) -> float | None:
    """Return how long a job was in the queue in seconds, or None if it never started."""
    if job.started_at is None:
        return None
    ready = max(job.created_at, job.not_before) if job.not_before is not None else job.created_at
    runs = [
        (to_micros(run.started_at, "started_at"), to_micros(run.ended_at, "ended_at"))
        for run in job.attempts[:-1]
        if run.started_at is not None and run.ended_at is not None
    ]
    has_failed = job.attempt > 1 or job.crashes > 0
    started = to_micros(job.started_at, "started_at")
    return max(0, queue_wait(to_micros(ready, "created_at"), runs, started, has_failed=has_failed)) / 1_000_000
