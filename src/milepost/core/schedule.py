"""A schedule: when jobs of a type are made, and with which fields."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

from milepost.core.errors import InvalidInputError, ScheduleNotFoundError
from milepost.core.placement import AFTER
from milepost.core.record import BY_NAME, OPTIONS
from milepost.core.serialization import US, single_line, to_micros, wrong_type

CatchUp = Literal["last", "none", "all"]
Overlap = Literal["skip", "queue", "allow"]
CATCH_UP: tuple[CatchUp, ...] = ("last", "none", "all")
OVERLAP: tuple[Overlap, ...] = ("skip", "queue", "allow")

OF_ONE_JOB = {
    "job_id": "is made from the name and the tick; omit it",
    "on_duplicate": "a tick whose unique key is taken makes no job; omit it",
    "after": "names jobs that end once, not for each tick; omit it",
    "group": "names a batch that is closed at a later tick; omit it",
    "parent_id": "names one job, which ends before a later tick; omit it",
    "not_before": "is a fixed time; use delay, which counts from the tick",
    "not_after": "is a fixed time; use expires_in, which counts from the tick",
}
"""The options of a submit that a schedule refuses, with the reason."""
SCHEDULE_OPTIONS = {name for name, option in OPTIONS.items() if option.worker and option.http} - {
    *OF_ONE_JOB,
    "on_failure",
}
"""The options that a schedule takes for its jobs. `on_failure` has no effect without `after`."""

SCHEDULES = "schedule/"
"""What the keys of schedules in the key-value store begin with."""
MAX_BYTES = 64 * 1024
"""The most that one schedule may have, its parameters included: every sweep reads it."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}\Z")
_TIMES = ("next_at", "last_at", "declared_at", "created_at")
_RULE = ("job_type", "cron", "every", "tz", "catch_up", "overlap", "fields")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule as it is stored. Times have a timezone.

    `next_at` is the next tick; `last_at` and `last_job_id` are the last tick that made a job, and that job. `paused` is
    why it makes no jobs: ``user``, ``undeclared`` (no worker has declared it for 24 h), or ``key_ended`` (the API key
    that made it was revoked or has expired).
    """

    name: str
    job_type: str
    cron: str | None = None
    every: float | None = None
    """Seconds between two ticks; a schedule has either this or `cron`."""
    tz: str = "UTC"
    catch_up: CatchUp = "last"
    overlap: Overlap = "skip"
    next_at: datetime | None = None
    last_at: datetime | None = None
    last_job_id: str | None = None
    fired: int = 0
    """How many ticks have made a job."""
    skipped: int = 0
    """How many ticks made none because the previous job had not ended, or its id or unique key was taken."""
    paused: str | None = None
    release: str | None = None
    """The release of the worker that declared it."""
    declared_at: datetime | None = None
    """When a worker last declared it; None for a schedule that was made by a call."""
    overridden: bool = False
    """Whether a call has changed what the code declares."""
    created_at: datetime | None = None
    created_by: str | None = None
    """The caller over HTTP who made it."""
    labels: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    """The parameters of its jobs; secret ones are shown as `***`."""
    upcoming: tuple[datetime, ...] = ()
    """The next ticks, where they were asked for."""
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The stored fields of its jobs; empty in a client."""
    declared: str | None = field(default=None, repr=False)
    """The digest of what the code declares."""
    replaced: tuple[str, ...] = field(default=(), repr=False)
    """The digests of earlier declarations."""

    @property
    def key(self) -> str:
        """Its key in the key-value store."""
        return SCHEDULES + self.name

    @property
    def queue(self) -> str | None:
        """The queue of its jobs; None for the default one."""
        found: str | None = BY_NAME["queue"].decode(self.fields)
        return found

    @property
    def priority(self) -> int:
        """The priority of its jobs."""
        found: int = BY_NAME["priority"].decode(self.fields)
        return found

    @property
    def origin(self) -> str:
        """The origin of its jobs: `api` if a request made the schedule, else `local`."""
        found: str = BY_NAME["origin"].decode(self.fields)
        return found

    @property
    def digest(self) -> str:
        """Return a digest of what it makes and when."""
        rule = {name: getattr(self, name) for name in _RULE}
        return sha256(json.dumps(rule, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the public values as JSON types."""
        shown = {name: getattr(self, name) for name in PUBLIC}
        shown |= {name: moment.isoformat() for name in _TIMES if (moment := shown[name]) is not None}
        shown["upcoming"] = [moment.isoformat() for moment in self.upcoming]
        return shown | {"labels": dict(self.labels), "params": dict(self.params)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schedule:
        """Return the schedule of such values; unknown ones are ignored."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        known |= {name: datetime.fromisoformat(known[name]) for name in _TIMES if known.get(name)}
        known["upcoming"] = tuple(map(datetime.fromisoformat, known.get("upcoming", ())))
        known["replaced"] = tuple(known.get("replaced", ()))
        return cls(**known)

    def to_text(self) -> str:
        """Return the stored text. Raises InvalidInputError if it is too long."""
        left_out = ("labels", "params", "upcoming")  # those of `fields`, and what is computed
        shown = {name: value for name, value in self.to_dict().items() if name not in left_out}
        kept = {"fields": dict(self.fields), "declared": self.declared, "replaced": list(self.replaced)}
        text = json.dumps(shown | kept, ensure_ascii=False)
        if len(text.encode("utf-8", "replace")) > MAX_BYTES:
            raise InvalidInputError(
                "params", f"a schedule has at most {MAX_BYTES // 1024} KiB; pass a path or an id instead of the data"
            )
        return text

    @classmethod
    def from_text(cls, text: str) -> Schedule:
        """Return the schedule of a stored text."""
        stored = cls.from_dict(json.loads(text))
        labels, params = (BY_NAME[name].decode(stored.fields) or {} for name in ("labels", "params"))
        return replace(stored, labels=labels, params=params)

    def job_id(self, tick: datetime) -> str:
        """Return the id of the job of a tick."""
        return f"{self.name}:{tick:%Y%m%dT%H%M%SZ}"

    def job_fields(self, tick: datetime, after: str | None = None) -> dict[str, str]:
        """Return the stored fields of the job of a tick, which starts when the job `after` has ended, however it ended."""
        fields = dict(self.fields) | {"scheduled": str(to_micros(tick, "tick"))}
        pairs = [f":schedule={self.name}", *([f"{AFTER}job:{after}"] if after is not None else [])]
        fields["labels"] = US.join([*pairs, *filter(None, [fields.get("labels")])])
        return fields if after is None else fields | {"on_failure": "run"}


PUBLIC = tuple(name for name in Schedule.__dataclass_fields__ if name not in ("fields", "declared", "replaced"))


def schedule_key(name: str) -> str:
    """Return the key of the schedule of a name. Raises ScheduleNotFoundError for a name that none can have."""
    if not isinstance(name, str):
        raise wrong_type("name", name, "; pass the name of a schedule")
    if not _NAME.match(name):
        raise ScheduleNotFoundError(single_line(name, 200))
    return SCHEDULES + name


def validate_schedule_name(name: object) -> str:
    """Return the name of a schedule, which is a part of job ids. Raises InvalidInputError."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise InvalidInputError("name", f"{name!r:.80} must be 1 to 100 of the characters A-Z a-z 0-9 . _ -")
    return name
