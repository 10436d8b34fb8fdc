"""Numbers out of ended jobs: per step, waits, durations, the slowest types, the groups of failures. Pure; knows no store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from milepost.core.encoding import micros, moment
from milepost.core.job import Job, JobStatus
from milepost.stores.filters import duration, failure_group


def percentile(values: list[float], share: float) -> float | None:
    """The value at a share (0 to 1) of some numbers, by the nearest rank; None without any."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 6)


def spread(values: list[float]) -> dict[str, float | int | None]:
    """The middle and the tail of some seconds."""
    return {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95), "count": len(values)}


def wait(job: Job) -> float | None:
    """How long a job waited for its start, in seconds."""
    if job.started_at is None:
        return None
    ready = max(job.created_at, job.not_before) if job.not_before is not None else job.created_at
    return max(0.0, (job.started_at - ready).total_seconds())


def overview(jobs: Iterable[Job], now: int, window: float, step: float) -> dict[str, Any]:
    """Steps, waits and durations of the jobs that ended within a window of seconds before `now` (microseconds)."""
    begin = now - int(window * 1_000_000)
    count = max(1, round(window / step))
    steps: list[dict[str, int]] = [{"completed": 0, "failed": 0, "cancelled": 0} for _ in range(count)]
    waits: list[float] = []
    took: dict[str, list[float]] = defaultdict(list)
    waited: dict[str, list[float]] = defaultdict(list)
    ends: dict[str, dict[str, int]] = defaultdict(lambda: {"completed": 0, "failed": 0, "cancelled": 0})
    for job in jobs:
        if job.completed_at is None:
            continue
        ended = micros(job.completed_at, "completed_at")
        if not begin <= ended <= now:
            continue
        place = min(count - 1, int((ended - begin) / (step * 1_000_000)))
        steps[place][job.status.value] += 1
        ends[job.job_type][job.status.value] += 1
        seconds, waiting = duration(job, now), wait(job)
        if seconds is not None and job.status is not JobStatus.CANCELLED:
            took[job.job_type].append(seconds)
        if waiting is not None:
            waits.append(waiting)
            waited[job.job_type].append(waiting)
    types: list[dict[str, Any]] = [
        {"job_type": name, **ends[name], "duration": spread(took[name]), "wait": spread(waited[name])} for name in ends
    ]
    types.sort(key=lambda one: (-(one["duration"]["p95"] or 0.0), one["job_type"]))
    return {
        "steps": [
            {"at": moment(begin + int(number * step * 1_000_000)).isoformat(), **counts}
            for number, counts in enumerate(steps)
        ],
        "wait": spread(waits),
        "duration": spread([seconds for values in took.values() for seconds in values]),
        "types": types,
    }


def failure_groups(jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """Failed jobs by exception type and last user frame, the largest group first."""
    groups: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        name = failure_group(job)
        if name is not None:
            groups[name].append(job)
    found = [_group(name, members) for name, members in groups.items()]
    return sorted(found, key=lambda one: (-one["count"], one["group"]))


def _group(name: str, members: list[Job]) -> dict[str, Any]:
    times = sorted(job.completed_at or job.created_at for job in members)
    newest = max(members, key=lambda job: job.completed_at or job.created_at)
    kind, _, frame = name.partition("@")
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return {
        "group": name,
        "type": kind,
        "frame": frame or None,
        "count": len(members),
        "first_at": times[0].isoformat(),
        "last_at": times[-1].isoformat(),
        "message": newest.error,
        "job_id": newest.job_id,
        "job_types": sorted({job.job_type for job in members}),
        "q": f'status:failed failure:"{quoted}"',
    }
