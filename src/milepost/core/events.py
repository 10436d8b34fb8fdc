"""What watchers are told: one Event for each accepted change. Owns the event's form; knows no store and no transport."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from milepost.core.encoding import from_json, moment
from milepost.core.job import JobStatus

STATUS_KINDS = frozenset({"created", "running", "retrying", "released", "completed", "failed", "cancelled"})
"""The kinds that tell of a change of status: a stream never leaves one out."""

LIFECYCLE_KINDS = STATUS_KINDS | {"receipt", "deleted"}


@dataclass(frozen=True, slots=True)
class Event:
    """One accepted change of one job. `version` is the job's version after it and the event's sequence number.

    `status`, `progress` and `message` are None when this change did not touch them. `data` depends on the kind: `log`
    has ``{"lines": [{"at", "level", "text"}]}``, `stage` and `checkpoint` what changed; `skipped` (made by a watcher, never stored)
    has ``{"after", "before"}``: the versions between these were progress or log events that are no longer kept.
    """

    job_id: str
    version: int
    kind: str
    at: datetime | None = None
    status: JobStatus | None = None
    progress: float | None = None
    message: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def stored(cls, job_id: str, version: int, kind: str, at: int, text: Mapping[str, str]) -> Event:
        """The event over the fields that a store kept of it. Unreadable ones are left out."""
        data: dict[str, Any] = {}
        status = progress = message = None
        for name, value in text.items():
            try:
                if name == "status":
                    status = JobStatus(value)
                elif name == "progress":
                    progress = float(value)
                elif name == "message":
                    message = value
                elif name == "data":
                    data.update(from_json(value))
                elif name in _JSON_FIELDS:
                    data[name] = from_json(value)
                else:
                    data[name] = value
            except (ValueError, TypeError):
                continue
        return cls(job_id, version, kind, moment(at), status, progress, message, data)

    @property
    def is_last_word(self) -> bool:
        """Whether nothing of the job can follow, short of an explicit retry."""
        if self.kind == "cancelled":
            return self.data.get("stop_confirmed") in ("0", "1")
        return self.kind in ("completed", "failed", "deleted", "receipt")

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON types; what it does not touch is left out."""
        shown: dict[str, Any] = {"job_id": self.job_id, "version": self.version, "kind": self.kind}
        if self.at is not None:
            shown["at"] = self.at.isoformat()
        if self.status is not None:
            shown["status"] = self.status.value
        if self.progress is not None:
            shown["progress"] = self.progress
        if self.message is not None:
            shown["message"] = self.message
        if self.data:
            shown["data"] = dict(self.data)
        return shown


_JSON_FIELDS = frozenset({"stages", "item_counts", "eta", "attempt", "max_attempts", "crashes"})
