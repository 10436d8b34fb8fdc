"""Encode jobs as lists and redacted records as JSON."""

from __future__ import annotations

from typing import Any

from milepost.core.activity import open_stage
from milepost.core.codecs import jsonable
from milepost.core.job import Job
from milepost.core.record import LISTED
from milepost.core.serialization import compact_json
from milepost.query.filters import title


def encoded(value: Any) -> bytes:
    """Return a value as compact UTF-8 JSON. Lone surrogates in old records are replaced."""
    return compact_json(value).encode("utf-8", "replace")


def redacted_job_bytes(job: Job) -> bytes:
    """Return a record without its content, for a caller without the scope to read."""
    shown = Job(
        job.job_id, job.job_type, job.status, job.progress, "", job.created_at, run_by=job.run_by, version=job.version
    )
    return shown.to_json()


def row(job: Job) -> dict[str, Any]:
    """Return a job as a list row: the listed fields, its title, its stage, and whether its cancel is not yet confirmed."""
    shown: dict[str, Any] = {one.name: one.row(getattr(job, one.name)) for one in LISTED}
    shown["stage"] = jsonable(open_stage(job.stages))
    shown["stage_number"] = sum(stage.parent is None for stage in job.stages)
    shown["stage_progress"] = job.stage_progress
    shown["activity"] = job.activity
    shown["title"] = title(job)
    shown["stopping"] = job.receipt is not None and job.receipt.confirmed is None
    return shown


def row_bytes(job: Job) -> bytes:
    """Return a job as a list row, as JSON."""
    return encoded(row(job))
