"""The job record as callers see it: Job and its parts. Owns the field names, their order and their JSON form; knows no
store and no transition.

A Job that comes from a store decodes each field when it is first looked at, so that a list of a thousand jobs costs
what is read of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from milepost.core.encoding import from_json, labels_dict, moment
from milepost.core.html import bar
from milepost.core.packing import unpack_record


class JobStatus(StrEnum):
    """Where a job is in its life. A str: its value in JSON and in f-strings."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self not in (JobStatus.PENDING, JobStatus.RUNNING)


class FailureKind(StrEnum):
    """Why an attempt ended badly."""

    ERROR = "error"
    TIMEOUT = "timeout"
    LOST = "lost"
    KILLED = "killed"
    CRASH_LOOP = "crash_loop"
    EXPIRED = "expired"
    NOT_SERIALISABLE = "not_serialisable"
    BAD_PARAMETERS = "bad_parameters"


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a run. `done` and `total` count `unit`s (total None: unknown); times are ISO 8601 texts."""

    name: str
    weight: float = 1.0
    done: float = 0.0
    total: float | None = None
    unit: str = "item"
    parent: str | None = None
    started_at: str | None = None
    ended_at: str | None = None

    @property
    def fraction(self) -> float | None:
        """How far the stage is, in [0, 1]; None while the total is unknown and the stage is open."""
        if self.ended_at is not None:
            return 1.0
        return min(1.0, self.done / self.total) if self.total else None


@dataclass(frozen=True, slots=True)
class ItemCounts:
    """What became of the items of a run: those done, and those that failed, with up to 10,000 of their keys."""

    done: int = 0
    failed: int = 0
    skipped: int = 0
    failed_keys: tuple[str, ...] = ()
    first_errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Eta:
    """The range in which a job is expected to end, or to start: 10th to 90th percentile (ISO 8601 texts)."""

    earliest: str
    latest: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of an attempt that ended badly: the crash dossier. Memory in bytes."""

    kind: str
    type: str | None = None
    message: str = ""
    traceback: str | None = None
    exit_signal: str | None = None
    exit_code: int | None = None
    last_stage: str | None = None
    last_item: str | None = None
    last_checkpoint_at: str | None = None
    last_log: tuple[str, ...] = ()
    peak_memory: int | None = None
    host: str | None = None
    pid: int | None = None
    versions: Mapping[str, str] | None = None
    attempt: int | None = None
    at: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """How a cancel, a timeout or a delete went. `confirmed` only when the code was seen to stop; None: not yet known."""

    requested_at: datetime | None
    requested_by: str | None = None
    reason: str | None = None
    stopped_at: datetime | None = None
    how: str | None = None
    confirmed: bool | None = None
    late_result: Any = None


_set = object.__setattr__


class Stored:
    """The undecoded side of a Job: the fields as its store holds them."""

    __slots__ = ("_packed", "_record")

    _packed: str | bytes
    _record: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        if name == "_record":
            record = unpack_record(self._packed)
            _set(self, "_record", record)
            return record
        decode = _DECODERS.get(name)
        if decode is None or name == "_packed":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = decode(self._record)
        _set(self, name, value)
        return value


@dataclass(frozen=True, slots=True)
class Job(Stored):
    """A snapshot of one job: the original's eleven fields, then what milepost adds. Changing it changes no store.

    Times are timezone-aware UTC, stamped by the store's clock. `progress` is in [0, 1]. `version` counts the accepted
    changes and is the sequence number of the newest event.
    """

    job_id: str
    job_type: str
    status: JobStatus
    progress: float
    message: str
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error: str | None = None
    result: Any = None
    metadata: dict[str, Any] | None = None
    driver: str = "caller"
    params: dict[str, Any] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    priority: int = 0
    attempt: int = 0
    max_attempts: int = 1
    crashes: int = 0
    not_before: datetime | None = None
    not_after: datetime | None = None
    updated_at: datetime | None = None
    version: int = 0
    worker: str | None = None
    lease_expires_at: datetime | None = None
    waiting_for: str | None = None
    parent_id: str | None = None
    unique_key: str | None = None
    stages: tuple[Stage, ...] = ()
    item_counts: ItemCounts | None = None
    eta: Eta | None = None
    expected_start: Eta | None = None
    stalled: str | None = None
    receipt: Receipt | None = None
    failure: Failure | None = None
    checkpoint_at: datetime | None = None
    retry_of: str | None = None
    trace: str | None = None

    @classmethod
    def stored(cls, job_id: str, record: Mapping[str, str] | str | bytes) -> Job:
        """A Job over the fields of a store: a mapping, or the text that `packing.pack` wrote."""
        job = cls.__new__(cls)
        _set(job, "job_id", job_id)
        _set(job, "_packed" if isinstance(record, str | bytes) else "_record", record)
        return job

    @property
    def record(self) -> Mapping[str, str]:
        """The fields as the store holds them, private ones included; empty for a Job that was built by hand."""
        try:
            return self._record
        except AttributeError:
            return {}

    @property
    def corrupt(self) -> tuple[str, ...]:
        """The names of the fields that the store holds in a form that cannot be read; they show as empty."""
        record, damaged = self.record, []
        for name in _FIELDS if record else ():
            kind, source = _FIELDS[name]
            if source in record and kind(record[source], ValueError) is ValueError:
                damaged.append(name)
        return tuple(damaged)

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self.status.is_terminal

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types, the original's eleven first; times are ISO 8601 with ``+00:00``."""
        data = {name: _jsonable(getattr(self, name)) for name in _NAMES}
        damaged = self.corrupt
        if damaged:
            data["corrupt"] = list(damaged)
        return data

    def to_json(self) -> bytes:
        """`to_dict()` as UTF-8 JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":")).encode()

    def _repr_html_(self) -> str:
        """The job as notebooks show it."""
        text = self.error or self.message or ""
        return bar(self.job_id, self.job_type, self.status, self.progress, text, self.stages)


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, JobStatus):
        return value.value
    if isinstance(value, tuple):
        return [_jsonable(inner) for inner in value]
    if isinstance(value, Stage | ItemCounts | Eta | Failure | Receipt):
        return {name: _jsonable(inner) for name, inner in asdict(value).items()}
    return value


# --- decoding: (text, what to give when it cannot be read) -> value ---------------------------------------------

_Kind = Callable[[str, Any], Any]


def _reader(read: Callable[[str], Any]) -> _Kind:
    def kind(text: str, damaged: Any) -> Any:
        try:
            return read(text)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return damaged

    return kind


def _part(cls: type) -> _Kind:
    """Read a JSON object as a dataclass; names that it does not know are passed over."""
    known = {f.name for f in fields(cls)}

    def read(text: str) -> Any:
        data = from_json(text)
        if data is None:
            return None
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known})

    return _reader(read)


def _fraction(text: str) -> float:
    number = float(text)
    if not 0.0 <= number <= 1.0:
        raise ValueError(text)
    return number


def _read_stages(text: str) -> tuple[Stage, ...]:
    known = {f.name for f in fields(Stage)}
    return tuple(Stage(**{k: v for k, v in stage.items() if k in known}) for stage in from_json(text))


_text = _reader(str)
_int = _reader(int)
_time = _reader(lambda text: moment(int(text)))
_json = _reader(from_json)

_FIELDS: dict[str, tuple[_Kind, str]] = {
    "job_type": (_text, "type"),
    "status": (_reader(JobStatus), "status"),
    "progress": (_reader(_fraction), "progress"),
    "message": (_text, "message"),
    "created_at": (_time, "created"),
    "started_at": (_time, "started"),
    "completed_at": (_time, "completed"),
    "error": (_text, "error"),
    "result": (_json, "result"),
    "metadata": (_json, "metadata"),
    "driver": (_text, "driver"),
    "params": (_json, "params"),
    "labels": (_reader(labels_dict), "labels"),
    "priority": (_int, "priority"),
    "attempt": (_int, "attempt"),
    "max_attempts": (_int, "max_attempts"),
    "crashes": (_int, "crashes"),
    "not_before": (_time, "not_before"),
    "not_after": (_time, "not_after"),
    "updated_at": (_time, "updated"),
    "version": (_int, "version"),
    "worker": (_text, "worker"),
    "lease_expires_at": (_time, "lease"),
    "waiting_for": (_text, "waiting_for"),
    "parent_id": (_text, "parent_id"),
    "unique_key": (_text, "unique_key"),
    "stages": (_reader(_read_stages), "stages"),
    "item_counts": (_part(ItemCounts), "item_counts"),
    "eta": (_part(Eta), "eta"),
    "expected_start": (_part(Eta), "expected_start"),
    "stalled": (_reader(lambda text: text or None), "stalled"),
    "failure": (_part(Failure), "failure"),
    "checkpoint_at": (_time, "checkpoint_at"),
    "retry_of": (_text, "retry_of"),
    "trace": (_text, "trace"),
}
_EMPTY: dict[str, Any] = {
    "job_type": "",
    "status": JobStatus.FAILED,
    "progress": 0.0,
    "message": "",
    "driver": "caller",
    "priority": 0,
    "attempt": 0,
    "max_attempts": 1,
    "crashes": 0,
    "version": 0,
    "stages": (),
}


def _decoder(name: str, kind: _Kind, source: str) -> Callable[[Mapping[str, str]], Any]:
    empty = _EMPTY.get(name)

    def decode(record: Mapping[str, str]) -> Any:
        text = record.get(source)
        return empty if text is None else kind(text, empty)

    return decode


def _masked(record: Mapping[str, str]) -> Any:
    """The parameters, secret ones as ``***``."""
    text = record.get("params")
    params = _json(text, None) if text is not None else None
    for name in record.get("secrets", "").split("\x1f"):
        if isinstance(params, dict) and name in params:
            params[name] = "***"
    return params


def _receipt(record: Mapping[str, str]) -> Receipt | None:
    if "stop_at" not in record:
        return None
    confirmed, stopped = record.get("stop_confirmed"), record.get("stopped")
    return Receipt(
        _time(record["stop_at"], None),
        record.get("stop_by"),
        record.get("stop_why"),
        _time(stopped, None) if stopped else None,
        record.get("stop_how"),
        confirmed == "1" if confirmed else None,
        _json(record["late_result"], None) if "late_result" in record else None,
    )


_DECODERS: dict[str, Callable[[Mapping[str, str]], Any]] = {
    **{name: _decoder(name, kind, source) for name, (kind, source) in _FIELDS.items()},
    "labels": lambda record: _FIELDS["labels"][0](record.get("labels", ""), {}),
    "params": _masked,
    "receipt": _receipt,
}
_NAMES = tuple(f.name for f in fields(Job))
