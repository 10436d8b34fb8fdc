"""What callers may ask for, checked and written as the fields of a record. Raises before anything is sent; knows no store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from milepost.core.defaults import CRASHES, MAX_ATTEMPTS, PRIORITY_MAX
from milepost.core.encoding import (
    ERROR_BYTES,
    RESULT_BYTES,
    job_type_text,
    key_text,
    labels_text,
    micros,
    one_line,
    seconds,
    to_json,
)
from milepost.core.errors import InvalidInput
from milepost.core.job import JobStatus
from milepost.tracking.tracing import current_trace

Duration = float | timedelta | str


def job_fields(
    driver: str,
    job_type: str,
    *,
    metadata: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    message: str = "Job created",
    unique_key: str | None = None,
    parent_id: str | None = None,
    trace: str | None = None,
    **fields: str | None,
) -> dict[str, str]:
    """The fields of a new record; `fields` are already text, None leaves one out. Raises InvalidInput."""
    record = {
        "type": job_type_text(job_type),
        "message": message,
        "driver": driver,
        "metadata": _object(metadata, "metadata"),
    }
    optional = {
        "labels": labels_text(labels) or None,
        "unique_key": key_text(unique_key) if unique_key is not None else None,
        "parent_id": parent_id and key_text(parent_id, "parent_id"),
        "trace": current_trace() if trace is None else trace and key_text(trace, "trace"),
        **fields,
    }
    record.update((name, value) for name, value in optional.items() if value is not None)
    return record


def submit_fields(
    job_type: str,
    *,
    params: Mapping[str, Any] | None,
    engine: str | None = None,
    priority: int = 0,
    not_before: datetime | Duration | None = None,
    not_after: datetime | None = None,
    max_attempts: int | None = None,
    timeout: Duration | None = None,
    on_lost: str | None = None,
    only_keys: str | None = None,
    retry_of: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    unique_key: str | None = None,
    parent_id: str | None = None,
    trace: str | None = None,
) -> dict[str, str]:
    """The fields of a job that workers, or the workers of an `engine`, are to run. Raises InvalidInput."""
    attempts = MAX_ATTEMPTS if max_attempts is None else max_attempts
    if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= 1000:
        raise InvalidInput("max_attempts", f"{max_attempts!r:.40} must be a whole number from 1 to 1000")
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > PRIORITY_MAX:
        raise InvalidInput(
            "priority", f"{priority!r:.40} must be a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}"
        )
    if on_lost not in (None, "retry", "fail"):
        raise InvalidInput("on_lost", f"{on_lost!r:.40} must be 'retry' or 'fail'")
    return job_fields(
        "worker" if engine is None else "engine",
        job_type,
        params=_object(params, "params"),
        slot=job_type if engine is None else None,
        queue=job_type if engine is None else None,
        engine=engine,
        hand_over=None if engine is None else "0",
        priority=str(priority) if priority else None,
        not_before=_moment(not_before, "not_before"),
        not_after=_moment(not_after, "not_after"),
        max_attempts=str(attempts),
        budget=str(attempts),
        max_crashes=str(CRASHES),
        timeout=None if timeout is None else str(int(seconds(timeout, "timeout") * 1_000_000)),
        on_lost=on_lost if on_lost == "fail" else None,
        only_keys=only_keys,
        retry_of=retry_of,
        metadata=metadata,
        labels=labels,
        unique_key=unique_key,
        parent_id=parent_id,
        trace=trace,
    )


def _object(value: Mapping[str, Any] | None, field: str) -> str:
    return "{}" if value is None else to_json(mapping(value, field), field)


def mapping(value: Mapping[str, Any] | None, field: str) -> dict[str, Any]:
    """A JSON object; None is an empty one. Raises InvalidInput."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(field, f"a {type(value).__name__}; must be a dict")
    return dict(value)


def _moment(value: datetime | Duration | None, field: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidInput(field, f"{value!r:.60} is not a datetime with a timezone")
    return str(micros(value, field))


def progress_text(progress: object) -> str:
    """A fraction, clamped to [0, 1]. Raises InvalidInput for NaN, infinities, bools and what is no number."""
    if isinstance(progress, bool) or not isinstance(progress, int | float):
        raise InvalidInput(
            "progress", f"{progress!r:.40} is a {type(progress).__name__}; must be a number from 0.0 to 1.0"
        )
    if not math.isfinite(progress):
        raise InvalidInput("progress", f"{progress} is not finite; must be a number from 0.0 to 1.0")
    return repr(float(min(1.0, max(0.0, progress))))


def update_values(progress: float | None, message: str | None, error: str | None, result: Any) -> dict[str, str | None]:
    """The values of an update. Raises InvalidInput; texts for people are cut, never refused."""
    return {
        "progress": None if progress is None else progress_text(progress),
        "message": None if message is None else one_line(message),
        "error": None if error is None else one_line(error, ERROR_BYTES),
        "result": None if result is None else to_json(result, "result", RESULT_BYTES),
    }


def status_value(status: JobStatus | str | None, field: str = "status") -> JobStatus | None:
    """A status given by value or member; None stays None. Raises InvalidInput that lists them."""
    if status is None:
        return None
    try:
        return JobStatus(status)
    except ValueError:
        known = ", ".join(JobStatus)
        raise InvalidInput(field, f"{status!r:.40} is not a status; one of {known}") from None
