"""The groups of failures: what failed for the same reason at the same place. Pure; knows no store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from milepost.core.job import Job
from milepost.stores.filters import failure_group


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
