"""Events of jobs, and positions in the event stream of one job, from which a watcher resumes."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.job import Job, JobStatus
from milepost.core.serialization import from_json, from_micros, to_micros

STATUS_KINDS = frozenset(
    {"created", "running", "retrying", "released", "suspended", "completed", "failed", "cancelled"}
)
"""The kinds that report a change of status; a stream never skips one of them."""

LIFECYCLE_KINDS = STATUS_KINDS | {"receipt", "deleted"}


@dataclass(frozen=True, slots=True)
class Event:
    """One accepted change of one job. `version` is the job's version after it and the event's sequence number.

    `status`, `progress` and `message` are None if the change did not touch them. `position` is set on events from a watch:
    another watch resumes after it. The kinds are

    - ``created``, ``running``, ``retrying``, ``released``, ``suspended``, ``completed``, ``failed``, ``cancelled``, ``receipt``
      and ``deleted``: the lifecycle;
    - ``progress``, ``stage``, ``log``, ``checkpoint``, ``step``, ``asked``, ``answered``, ``paused``, ``resumed``, ``stalled``,
      ``ready`` (nothing holds it any more) and ``closed`` (of a batch): what else changed;
    - ``snapshot`` and ``skipped``, which a watch makes.

    `data` depends on the kind: `log` has ``{"lines": [{"at", "level", "text"}]}``; `skipped` has ``{"after", "before"}``,
    versions between which progress or log events are no longer kept; others have the fields that changed.
    """

    job_id: str
    version: int
    kind: str
    at: datetime | None = None
    status: JobStatus | None = None
    progress: float | None = None
    message: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    position: str | None = field(default=None, compare=False)

    @classmethod
    def stored(cls, job_id: str, version: int, kind: str, at: int, text: Mapping[str, str]) -> Event:
        """Return the event with the fields that a store kept; unreadable ones are left out."""
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
        return cls(job_id, version, kind, from_micros(at), status, progress, message, data)

    @property
    def is_last_word(self) -> bool:
        """Return whether no event can follow, except after an explicit retry."""
        if self.kind == "cancelled":
            return self.data.get("stop_confirmed") in ("0", "1")
        return self.kind in ("completed", "failed", "deleted", "receipt")

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON types; fields that the change did not touch are left out."""
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


class SeenEvents:
    """Drops the repeats of a feed, which may deliver an event again; remembers the newest 10,000.

    Events are distinguished by id, version and time: when a job is deleted and its id used again, versions begin anew.
    """

    LIMIT = 10_000

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, int, datetime | None], None] = OrderedDict()

    def is_new(self, event: Event) -> bool:
        """Return whether this event is seen for the first time."""
        key = (event.job_id, event.version, event.at)
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > self.LIMIT:
            self._seen.popitem(last=False)
        return True


_JSON_FIELDS = frozenset({"stages", "item_counts", "eta", "attempt", "max_attempts", "crashes", "open_children"})


PATTERN = r"^[0-9]{1,16}(-[0-9a-z]{1,12})?$"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class StreamPosition(NamedTuple):
    """The last version seen, and of which job. `born` is None if only the version is known."""

    version: int
    born: str | None = None

    @classmethod
    def of(cls, job: Job, version: int) -> StreamPosition:
        """Return the position after the given version of this job."""
        return cls(version, born(job.created_at))

    @classmethod
    def read(cls, text: str | int) -> StreamPosition:
        """Return the position that a text names. Raises InvalidInputError."""
        if isinstance(text, bool) or not isinstance(text, (int, str)) or not re.fullmatch(PATTERN, str(text)):
            raise InvalidInputError(
                "after", f"{text!r:.60} is not a stream position; use a version (3) or the `position` of an event"
            )
        version, _, creation = str(text).partition("-")
        return cls(int(version), creation or None)

    def seen_of(self, job: Job) -> int | None:
        """Return the last version of this job that was seen, or None if the position is of another job or ahead of it."""
        if self.version > job.version or self.born not in (None, born(job.created_at)):
            return None
        return self.version

    def __str__(self) -> str:
        return str(self.version) if self.born is None else f"{self.version}-{self.born}"


def born(created_at: datetime) -> str:
    """Return the creation time of a job in microseconds, in base 36."""
    number, text = to_micros(created_at, "created_at"), ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text or "0"
