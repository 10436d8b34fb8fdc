"""The job record as callers see it; a Job from a store decodes each field on first access."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Generic

from milepost.core.activity import activity, is_between_runs, outer_stage
from milepost.core.codecs import UNREADABLE, jsonable
from milepost.core.html import bar
from milepost.core.record import BY_NAME, PUBLIC, JobFields
from milepost.core.record_codec import unpack_record
from milepost.core.result_types import R_co
from milepost.core.serialization import compact_json
from milepost.core.values import Eta, Failure, FailureKind, ItemCounts, JobStatus, Receipt, Stage, WaitingFor

__all__ = ["Eta", "Failure", "FailureKind", "ItemCounts", "Job", "JobStatus", "Receipt", "Stage", "WaitingFor"]

_set = object.__setattr__


@dataclass(frozen=True, slots=True, init=False, repr=False, eq=False)  # those of JobFields
class Job(JobFields, Generic[R_co]):
    """An immutable snapshot of one job; read it again for the current state. `JobFields` has its fields.

    Times are timezone-aware UTC, stamped by the store's clock. `Job[int]` is a job whose `result`, null until the job has
    completed, is an int; `Job` alone says nothing about it.
    """

    if TYPE_CHECKING:
        result: R_co = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        """Decode a field on first access."""
        if name == "_record":
            value: Any = unpack_record(self._packed)
        elif name in BY_NAME:
            value = BY_NAME[name].decode(self._record)
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        _set(self, name, value)
        return value

    @classmethod
    def stored(cls, job_id: str, record: Mapping[str, str] | str | bytes) -> Job:
        """Return the Job of stored fields: a mapping, or the text that `record_codec.pack` wrote."""
        job = cls.__new__(cls)
        _set(job, "job_id", job_id)
        _set(job, "_packed" if isinstance(record, str | bytes) else "_record", record)
        return job

    @property
    def record(self) -> Mapping[str, str]:
        """Return the stored fields, including private ones; empty for a Job that did not come from a store."""
        try:
            return self._record
        except AttributeError:
            return {}

    @property
    def corrupt(self) -> tuple[str, ...]:
        """Return the names of the fields that cannot be decoded; they read as empty."""
        record = self.record
        return tuple(one.name for one in PUBLIC if one.key in record and one.is_damaged(record[one.key]))

    @property
    def is_terminal(self) -> bool:
        """Return whether the job has ended."""
        return self.status.is_terminal

    @property
    def stage_progress(self) -> float | None:
        """Return how far the open stage is, in [0, 1]; None without one, between two runs, or while its total is unknown."""
        stage = None if is_between_runs(self) else outer_stage(self.stages)
        return None if stage is None else stage.fraction

    @property
    def activity(self) -> str:
        """Return one line on what the job does: why it waits, its stage and count, its error, or who cancelled it."""
        return getattr(self, "_activity", None) or activity(self)

    def _say(self, activity: str) -> Job:
        """Let the job have this `activity`, from a place that knows more than its record, and return it."""
        object.__setattr__(self, "_activity", activity)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types; times are ISO 8601 with ``+00:00``."""
        data = {one.name: jsonable(getattr(self, one.name)) for one in PUBLIC}
        data |= {"stage_progress": self.stage_progress, "activity": self.activity}
        damaged = self.corrupt
        if damaged:
            data["corrupt"] = list(damaged)
        return data

    def to_json(self) -> bytes:
        """Return `to_dict()` as UTF-8 JSON; lone surrogates, which no store accepts but an old record may hold, are replaced."""
        try:
            return self._fast_json().encode()
        except UNREADABLE:
            return compact_json(self.to_dict()).encode("utf-8", "replace")

    def _fast_json(self) -> str:
        """Write the JSON from the stored texts, without building their values. Raises one of UNREADABLE if one is damaged."""
        record = self._record
        parts = _EMPTY_PARTS.copy()
        parts[0] += encode_basestring(self.job_id)
        for key, text in record.items():
            writer = _WRITERS.get(key)
            if writer is not None:
                index, start, write = writer
                parts[index] = start + write(text)
        for source, other, index, start, one, derive in _DERIVED:
            if source in record or other in record:
                parts[index] = start + (
                    compact_json(jsonable(one.decode(record))) if derive is None else derive(record)
                )
        if ":" in record.get("labels", ""):
            for index, one in _INDEXED:
                parts[index] = f'"{one.name}":{compact_json(jsonable(one.decode(record)))}'
        stage = compact_json(self.stage_progress) if "stages" in record else "null"
        made = f'"stage_progress":{stage},"activity":{encode_basestring(self.activity)}'
        return f"{{{','.join(parts)},{made}}}"

    def _repr_html_(self) -> str:
        """Return the job as HTML for notebooks."""
        return bar(self.job_id, self.job_type, self.status, self.progress, self.activity, self.stages)


_EMPTY_PARTS = [f'"{one.name}":{"" if one.name == "job_id" else compact_json(jsonable(one.default))}' for one in PUBLIC]
_WRITERS = {
    one.key: (index, f'"{one.name}":', one.codec.json) for index, one in enumerate(PUBLIC) if one.codec is not None
}
_DERIVED = tuple(
    (one.derived.sources[0], one.derived.sources[-1], index, f'"{one.name}":', one, one.derived.json)
    for index, one in enumerate(PUBLIC)
    if one.derived is not None
)
_INDEXED = tuple((index, one) for index, one in enumerate(PUBLIC) if one.indexed and one.derived is None)
