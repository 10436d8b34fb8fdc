"""Rollups of ended jobs: per minute and per hour, type and queue, counts by status and histograms of run and wait times.

A store counts each end in the step that ends the job, under names of `metrics`, and its sweep closes the minutes that are
over: it adds their counts to one text a minute and one an hour. So each end is in exactly one minute and one hour.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from milepost.core.serialization import RS, US

MINUTE, HOUR = 60_000_000, 3_600_000_000
"""Microseconds."""
PER_DOUBLING = 4
SCALE = PER_DOUBLING / math.log(2)
"""The width of the histograms' buckets: four to a doubling, so that a quantile is at most 9 % off."""

_log = math.log
_BUCKET = re.compile(r"(?:([a-z_]+)\.)?([rw])(\d+)\Z")

Counts = Mapping[str, int]


class Resolution(NamedTuple):
    """How a store keeps minutes or hours: `width` in microseconds, and how many are `kept`.

    If their texts exceed `max_bytes`, the oldest are deleted earlier.
    """

    width: int
    kept: int
    max_bytes: int


RESOLUTIONS = {False: Resolution(MINUTE, 48 * 60, 3_500_000), True: Resolution(HOUR, 60 * 24, 1_500_000)}
"""By `hourly`."""


class Rollup(NamedTuple):
    """The ends of one type and queue in one minute or hour, which begins at `at` (microseconds).

    `ended` counts by status. `ran` (by status) and `waited` are histograms: bucket -> number of jobs, see `seconds_of`.
    """

    at: int
    job_type: str
    queue: str
    ended: dict[str, int]
    ran: dict[str, dict[int, int]]
    waited: dict[int, int]


class Rollups(NamedTuple):
    """Rollups, oldest first, and the time (microseconds) since which they are complete."""

    rollups: list[Rollup]
    complete_since: int


def bucket_of(micros: int) -> int:
    """Return the histogram bucket of a duration."""
    return int(_log(micros) * SCALE) if micros > 1 else 0


def seconds_of(bucket: int) -> float:
    """Return the duration in the middle of a bucket, in seconds."""
    return math.exp((bucket + 0.5) / SCALE) / 1_000_000


def series(job_type: str, queue: str = "") -> str:
    """Return the name of a type and queue. An empty queue is that of the type's name."""
    return f"{job_type}{US}{queue if queue != job_type else ''}"


def counted_end(record: Mapping[str, str]) -> list[tuple[int, str, str]]:
    """Return what to count for the end of a job, each as (minute, series, metric).

    `record` is what the change that ended it has written, see `BranchResult.ended`.
    """
    ended, status, name = (
        _number(record["completed"]),
        record["status"],
        series(record["type"], record.get("queue", "")),
    )
    minute = ended // MINUTE
    if "started" not in record:
        return [(minute, name, status)]
    started = _number(record["started"])
    ready = max(_number(record["created"]), _number(record.get("not_before", "")))
    waited = started - ready
    if "runs" in record:
        rows = [row.split(US) for row in record["runs"].split(RS)]
        runs = [(_number(row[0]), _number(row[1])) for row in rows if len(row) > 1]
        has_failed = _number(record.get("attempt", "")) > 1 or "crashes" in record
        waited = queue_wait(ready, runs, started, has_failed=has_failed)
    return [
        (minute, name, status),
        (minute, name, f"{status}.r{bucket_of(ended - started)}"),
        (minute, name, f"w{bucket_of(waited)}"),
    ]


def queue_wait(ready: int, earlier: Iterable[tuple[int, int]], started: int, *, has_failed: bool) -> int:
    """Return how long a job that was `ready` at a time was in the queue, in microseconds.

    `earlier` are the start and end of the runs before the last one. If one has failed, the job has waited until the first of
    them, because its next run may have been asked for much later. If they were only given back or lost, it has waited until
    its last run, without the time of these runs, because the code of a run that was given back may not have begun. Runs
    before `ready` are left out: a retry has postponed the job, and its earlier time is not kept.
    """
    runs = [(start, end) for start, end in earlier if start >= ready]
    if runs and has_failed:
        return runs[0][0] - ready
    return started - ready - sum(end - start for start, end in runs)


def _number(text: str) -> int:
    """Return a time, 0 if it is damaged."""
    return int(text) if text.isdecimal() else 0


def merge(text: str, added: Mapping[str, Counts]) -> str:
    """Add counts, by series and metric, to the text of a minute or hour."""
    found = {name: Counter(counts) for name, counts in parse(text).items()}
    for name, counts in added.items():
        found.setdefault(name, Counter()).update(counts)
    return RS.join(f"{name}{US}{' '.join(f'{m}={n}' for m, n in counts.items())}" for name, counts in found.items())


def parse(text: str) -> dict[str, dict[str, int]]:
    """Read what `merge` wrote: series -> metric -> count."""
    found = {}
    for line in text.split(RS) if text else ():
        name, _, rest = line.rpartition(US)
        found[name] = {m: int(n) for m, _, n in (part.rpartition("=") for part in rest.split(" "))}
    return found


def assembled(
    closed: Iterable[tuple[int, str]], still_open: Iterable[tuple[int, str, str, int]], *, hourly: bool
) -> list[Rollup]:
    """Make rollups of closed texts, by the number of their minute or hour, and of counts of minutes not yet closed."""
    width = RESOLUTIONS[hourly].width
    found: dict[tuple[int, str], Counter[str]] = {}
    for number, text in closed:
        for name, counts in parse(text).items():
            found[number, name] = Counter(counts)
    for minute, name, metric, count in still_open:
        found.setdefault((minute * MINUTE // width, name), Counter())[metric] += count
    return [_rollup(number * width, name, counts) for (number, name), counts in sorted(found.items())]


def complete_since(now: int, dropped: int | None, *, hourly: bool) -> int:
    """Return the time since which rollups are complete; `dropped`: the last minute or hour that was deleted early."""
    width, kept, _ = RESOLUTIONS[hourly]
    return max((now // width - kept + 1) * width, 0 if dropped is None else (dropped + 1) * width)


def _rollup(at: int, name: str, counts: Counts) -> Rollup:
    job_type, _, queue = name.partition(US)
    rollup = Rollup(at, job_type, queue or job_type, {}, {}, {})
    for metric, count in counts.items():
        bucket = _BUCKET.match(metric)
        if bucket is None:
            rollup.ended[metric] = count
        elif bucket[2] == "w":
            rollup.waited[int(bucket[3])] = count
        else:
            rollup.ran.setdefault(bucket[1], {})[int(bucket[3])] = count
    return rollup


def by_number(counts: Mapping[tuple[int, str, str], int], *, hourly: bool) -> dict[int, dict[str, Counter[str]]]:
    """Return counts of (minute, series, metric) by the number of the minute or hour, the series and the metric."""
    found: dict[int, dict[str, Counter[str]]] = {}
    for (minute, name, metric), count in counts.items():
        number = minute * MINUTE // RESOLUTIONS[hourly].width
        found.setdefault(number, {}).setdefault(name, Counter())[metric] += count
    return found


def outdated(sizes: Mapping[int, int], now: int, *, hourly: bool) -> list[int]:
    """Return the numbers of the minutes (or hours) to delete: those that are too old, and the oldest above the limit."""
    width, kept, left = RESOLUTIONS[hourly]
    gone = []
    for number in sorted(sizes, reverse=True):
        left -= sizes[number]
        if left < 0 or number <= now // width - kept:
            gone.append(number)
    return gone
