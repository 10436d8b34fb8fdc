"""Jobs and events as JSON bytes, written from the texts of the store. Owns the fast forms; knows no route.

What a job holds as JSON is checked and copied, not rebuilt, so that one `GET` costs microseconds. Everything unusual
(a damaged field, secret parameters, a job that was built by hand) takes the long way, `Job.to_json()`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

from milepost.core.encoding import from_json, moment
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.stores.filters import title

_quoted: Callable[[str], str] = encode_basestring
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_check = json.JSONDecoder(parse_constant=from_json).decode
"""Raises ValueError for what is not JSON: `from_json` refuses the constants that Python's own reader would take."""
_SHORT_WAY = frozenset({"pending", "running", "completed", "failed", "cancelled"})


def encoded(value: Any) -> bytes:
    """Compact UTF-8 JSON. Lone surrogates, which no store accepts but an old record may hold, are replaced."""
    return _encode(value).encode("utf-8", "replace")


def job_bytes(job: Job) -> bytes:
    """`Job.to_json()`, written from the record."""
    record = job.record
    if not record or "secrets" in record or "stop_at" in record:
        return _the_long_way(job)
    try:
        return _from_record(job.job_id, record).encode()
    except (ValueError, KeyError, OverflowError, RecursionError):
        return _the_long_way(job)


def _the_long_way(job: Job) -> bytes:
    return encoded(job.to_dict())


def _text(record: Mapping[str, str], name: str) -> str:
    value = record.get(name)
    return "null" if value is None else _quoted(value)


def _raw(record: Mapping[str, str], name: str) -> str:
    """JSON of the store as it is; ValueError when it is none."""
    value = record.get(name)
    if value is None:
        return "null"
    _check(value)
    return value


def _time(record: Mapping[str, str], name: str) -> str:
    value = record.get(name)
    return "null" if value is None else _instant(value)


@lru_cache(maxsize=8192)
def _instant(micros: str) -> str:
    """A time of the store as JSON. Remembered, because a client that polls asks for the same ones again and again."""
    return f'"{moment(int(micros)).isoformat()}"'


def _whole(record: Mapping[str, str], name: str, empty: int = 0) -> int:
    value = record.get(name)
    return empty if value is None else int(value)


def _from_record(job_id: str, r: Mapping[str, str]) -> str:
    status = r["status"]
    progress = float(r.get("progress", "0"))
    if status not in _SHORT_WAY or not 0.0 <= progress <= 1.0:
        raise ValueError(status)
    parts = any(name in r for name in ("stages", "item_counts", "eta", "expected_start", "failure"))
    shown = Job.stored(job_id, r).to_dict() if parts else None

    def part(name: str, empty: str) -> str:
        return empty if shown is None else _encode(shown[name])

    if shown is not None and "corrupt" in shown:
        raise ValueError("corrupt")
    labels = r.get("labels")
    pairs = dict(pair.split("=", 1) for pair in labels.split("\x1f")) if labels else {}
    return (
        f'{{"job_id":{_quoted(job_id)},"job_type":{_quoted(r["type"])},"status":"{status}","progress":{progress!r},'
        f'"message":{_quoted(r.get("message", ""))},"created_at":{_time(r, "created")},'
        f'"started_at":{_time(r, "started")},"completed_at":{_time(r, "completed")},"error":{_text(r, "error")},'
        f'"result":{_raw(r, "result")},"metadata":{_raw(r, "metadata")},"driver":{_quoted(r.get("driver", "caller"))},'
        f'"params":{_raw(r, "params")},"labels":{_encode(pairs) if pairs else "{}"},'
        f'"priority":{_whole(r, "priority")},"attempt":{_whole(r, "attempt")},'
        f'"max_attempts":{_whole(r, "max_attempts", 1)},"crashes":{_whole(r, "crashes")},'
        f'"not_before":{_time(r, "not_before")},"not_after":{_time(r, "not_after")},"updated_at":{_time(r, "updated")},'
        f'"version":{_whole(r, "version")},"worker":{_text(r, "worker")},"lease_expires_at":{_time(r, "lease")},'
        f'"waiting_for":{_text(r, "waiting_for")},"parent_id":{_text(r, "parent_id")},'
        f'"unique_key":{_text(r, "unique_key")},"stages":{part("stages", "[]")},'
        f'"item_counts":{part("item_counts", "null")},"eta":{part("eta", "null")},'
        f'"expected_start":{part("expected_start", "null")},"stalled":{_text(r, "stalled") if r.get("stalled") else "null"},'
        f'"receipt":null,"failure":{part("failure", "null")},"checkpoint_at":{_time(r, "checkpoint_at")},'
        f'"retry_of":{_text(r, "retry_of")},"trace":{_text(r, "trace")}}}'
    )


ROW = (
    "job_id", "job_type", "status", "progress", "message", "created_at", "started_at", "completed_at", "updated_at",
    "error", "driver", "labels", "attempt", "max_attempts", "version", "worker", "eta", "stalled", "item_counts",
    "waiting_for",
)  # fmt: skip
"""What a list stream tells of a job: never params, results, metadata or logs."""


def row(job: Job) -> dict[str, Any]:
    """A job as lists show it: `ROW`, its title, its stage, and whether its cancel is still without a receipt."""
    shown: dict[str, Any] = {}
    for name in ROW:
        value = getattr(job, name)
        shown[name] = value.isoformat() if isinstance(value, datetime) else value
    if job.eta is not None:
        shown["eta"] = {"earliest": job.eta.earliest, "latest": job.eta.latest}
    if job.item_counts is not None:
        shown["item_counts"] = {"done": job.item_counts.done, "failed": job.item_counts.failed}
    open_stages = [stage for stage in job.stages if stage.ended_at is None and stage.started_at is not None]
    shown["stage"] = open_stages[-1].name if open_stages else None
    shown["title"] = title(job)
    shown["stopping"] = job.receipt is not None and job.receipt.confirmed is None
    return shown


def event_data(event: Event) -> bytes:
    """An event as one line of JSON."""
    return encoded(event.to_dict())
