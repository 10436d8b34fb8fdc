"""How many jobs ended when, and how long they waited and ran. Owns the arithmetic and what it may cost; knows no store.

Ends are counted in buckets of fixed widths: exact, whatever their number. Waits and durations are kept of a random few of
each bucket, so that half and nineteen twentieths are close, and memory and work do not grow with the number of jobs.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

from milepost.core.encoding import micros, moment
from milepost.core.job import Job, JobStatus
from milepost.stores.filters import duration

RINGS = ((10, 2 * 3600), (300, 8 * 86_400), (86_400, 370 * 86_400))
"""The widths of buckets, and for how long they are kept: both in seconds. A window is read from the first that holds it."""
SAMPLE = 16
ENDS = ("completed", "failed", "cancelled")

Weighted = tuple[float, float]
"""A number of seconds, and for how many jobs it stands."""


def wait(job: Job) -> float | None:
    """How long a job waited for its start, in seconds."""
    if job.started_at is None:
        return None
    ready = max(job.created_at, job.not_before) if job.not_before is not None else job.created_at
    return max(0.0, (job.started_at - ready).total_seconds())


class Sample:
    """A random few of many numbers."""

    __slots__ = ("count", "kept")

    def __init__(self) -> None:
        self.count = 0
        self.kept: list[float] = []

    def add(self, value: float) -> None:
        """Take a number; each has the same chance to be among the kept ones."""
        self.count += 1
        if len(self.kept) < SAMPLE:
            self.kept.append(value)
        elif (place := random.randrange(self.count)) < SAMPLE:
            self.kept[place] = value

    def weighted(self) -> Iterator[Weighted]:
        """The kept numbers, each with what it stands for."""
        for value in self.kept:
            yield value, self.count / len(self.kept)


class Tally:
    """The ends of one type within one bucket."""

    __slots__ = ("ends", "ran", "waited")

    def __init__(self) -> None:
        self.ends = dict.fromkeys(ENDS, 0)
        self.ran, self.waited = Sample(), Sample()

    def add(self, job: Job, ran: float | None, waited: float | None) -> None:
        """Count an end. A cancelled job says nothing about how long jobs run."""
        self.ends[job.status.value] += 1
        if ran is not None and job.status is not JobStatus.CANCELLED:
            self.ran.add(ran)
        if waited is not None:
            self.waited.add(waited)


class Ring:
    """Tallies in buckets of one width (microseconds), the newest ones."""

    def __init__(self, width: int, kept: int) -> None:
        self.width, self.kept = width * 1_000_000, kept * 1_000_000
        self.buckets: dict[int, dict[str, Tally]] = {}

    def tally(self, job_type: str, at: int) -> Tally:
        """Where an end of this time is counted."""
        number = at // self.width
        bucket = self.buckets.get(number)
        if bucket is None:
            bucket = self.buckets[number] = {}
            oldest = number - self.kept // self.width
            for old in [one for one in self.buckets if one < oldest]:
                del self.buckets[old]
        if job_type not in bucket:
            bucket[job_type] = Tally()
        return bucket[job_type]

    def since(self, begin: int) -> Iterator[tuple[int, dict[str, Tally]]]:
        """The buckets whose middle lies after a time, with that middle."""
        for number, bucket in self.buckets.items():
            middle = number * self.width + self.width // 2
            if middle >= begin:
                yield middle, bucket


class Tallies:
    """The ends of jobs over time."""

    def __init__(self) -> None:
        self._rings = [Ring(width, kept) for width, kept in RINGS]

    def add(self, job: Job) -> None:
        """Count an ended job; one that has not ended is passed over."""
        if job.completed_at is None or job.status.value not in ENDS:
            return
        at = micros(job.completed_at, "completed_at")
        ran, waited = duration(job, at), wait(job)
        for ring in self._rings:
            ring.tally(job.job_type, at).add(job, ran, waited)

    def overview(self, now: int, window: float, step: float) -> dict[str, Any]:
        """Steps, waits and durations of what ended within a window of seconds before `now` (microseconds).

        A step is at least as long as a bucket; the answer says how long it is.
        """
        ring = next((one for one in self._rings if one.kept >= window * 1_000_000), self._rings[-1])
        step = max(step, ring.width / 1_000_000)
        begin, count = now - int(window * 1_000_000), max(1, round(window / step))
        steps = [dict.fromkeys(ENDS, 0) for _ in range(count)]
        types: dict[str, list[Tally]] = {}
        for middle, bucket in ring.since(begin):
            place = min(count - 1, int((middle - begin) / (step * 1_000_000)))
            for job_type, tally in bucket.items():
                types.setdefault(job_type, []).append(tally)
                for status, ended in tally.ends.items():
                    steps[place][status] += ended
        shown = [_type(name, tallies) for name, tallies in types.items()]
        shown.sort(key=lambda one: (-(one["duration"]["p95"] or 0.0), one["job_type"]))
        every = [tally for tallies in types.values() for tally in tallies]
        return {
            "step": step,
            "steps": [
                {"at": moment(begin + int(number * step * 1_000_000)).isoformat(), **ends}
                for number, ends in enumerate(steps)
            ],
            "wait": spread(tally.waited for tally in every),
            "duration": spread(tally.ran for tally in every),
            "types": shown,
        }


def _type(name: str, tallies: list[Tally]) -> dict[str, Any]:
    return {
        "job_type": name,
        **{status: sum(tally.ends[status] for tally in tallies) for status in ENDS},
        "duration": spread(tally.ran for tally in tallies),
        "wait": spread(tally.waited for tally in tallies),
    }


def spread(samples: Iterable[Sample]) -> dict[str, float | int | None]:
    """The middle and the tail of some seconds, by the nearest rank, and how many there were."""
    used = [sample for sample in samples if sample.count]
    ordered = sorted(pair for sample in used for pair in sample.weighted())
    total = sum(weight for _, weight in ordered)
    found: dict[str, float | int | None] = {"p50": None, "p95": None}
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        passed = 0.0
        for value, weight in ordered:
            passed += weight
            if passed > share * total or value == ordered[-1][0]:
                found[name] = round(value, 6)
                break
    return {**found, "count": sum(sample.count for sample in used)}
