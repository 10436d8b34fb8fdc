"""The values that fields of a job have: its status, and the frozen parts such as stages, counts, ETA, failure and receipt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from milepost.core.serialization import RS, US, from_micros


class JobStatus(StrEnum):
    """The status of a job; a str with its value in JSON and in f-strings."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Return whether the job has ended."""
        return self not in (JobStatus.PENDING, JobStatus.RUNNING)


class FailureKind(StrEnum):
    """Why an attempt failed."""

    ERROR = "error"
    TIMEOUT = "timeout"
    LOST = "lost"
    KILLED = "killed"
    CRASH_LOOP = "crash_loop"
    EXPIRED = "expired"
    BAD_PARAMETERS = "bad_parameters"


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a run. `done` and `total` (None: unknown) count `unit`s; `parent` is a name; times are ISO 8601 texts."""

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
        """Return the progress of the stage in [0, 1]; None while it is open and the total is unknown."""
        if self.ended_at is not None:
            return 1.0
        return min(1.0, self.done / self.total) if self.total else None


@dataclass(frozen=True, slots=True)
class ItemCounts:
    """How many items of a run are done, failed and skipped, with up to 10,000 keys of failed ones."""

    done: int = 0
    failed: int = 0
    skipped: int = 0
    failed_keys: tuple[str, ...] = ()
    first_errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WaitingFor:
    """Why a pending job has not started, or the open question of a running one: a code, and the values that its text needs.

    Codes: ``no_worker``, ``queue_not_served``, ``paused`` (its type), ``limit_reached``, ``partition_limit_reached``,
    ``rate_reached``, ``gate_closed``, ``starts_at``, ``retries_at``, ``wakes_at``, ``jobs_ahead``, ``many_jobs_ahead``,
    ``after``, ``answer``, ``paused_job`` and ``previous_run_stopping``.
    """

    code: str
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def members(self) -> MemberCounts | None:
        """Return the numbers of the children, or of the jobs of the batch, that it waits for; None where they were not read."""
        names = MemberCounts.__dataclass_fields__
        known = {name: self.params[name] for name in names if isinstance(self.params.get(name), int)}
        return MemberCounts(**known) if len(known) == len(names) else None


@dataclass(frozen=True, slots=True)
class Eta:
    """The time at which a job is expected to end, or to start: 10th and 90th percentile (ISO 8601 texts)."""

    earliest: str
    latest: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The crash report of a failed attempt.

    `kind` is a FailureKind, `type` the class of the exception; `peak_memory` is in bytes, `at` and `last_checkpoint_at` are
    ISO 8601 texts.
    """

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

    @property
    def is_lost(self) -> bool:
        """Whether the run ended because its lease expired: its code had stopped earlier, at an unknown time."""
        return self.kind in (FailureKind.LOST, FailureKind.CRASH_LOOP)


@dataclass(frozen=True, slots=True)
class Receipt:
    """How the code of a cancelled or timed-out run stopped. `confirmed` is True if it was seen to stop, None if unknown.

    `how` is ``never_started``, ``cooperative``, ``task_cancelled``, ``terminated``, ``killed``, ``already_finished``,
    ``still_running`` or ``lease_expired``. `late_result` is what the code returned after the stop was requested.
    """

    requested_at: datetime | None
    requested_by: str | None = None
    reason: str | None = None
    stopped_at: datetime | None = None
    how: str | None = None
    confirmed: bool | None = None
    late_result: Any = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a run, or an answer given before it was asked. Times are ISO 8601 texts.

    `state` is ``early`` (answered, but not asked yet), ``open``, ``answered``, ``default`` (it expired, and the code continued
    with its default) or ``expired``. `budget` is the budget of the job that was spent, if the question asks to raise it: the
    answer is added to it.
    """

    key: str
    prompt: str = ""
    json_schema: Mapping[str, Any] | None = None
    state: str = "open"
    asked_at: str | None = None
    expires_at: str | None = None
    answer: Any = None
    answered_at: str | None = None
    answered_by: str | None = None
    budget: Mapping[str, float] | None = None


LARGE_MARK = "\x1a"
"""The first character of the marker of a large value; its size follows. JSON never begins with it."""


@dataclass(frozen=True, slots=True)
class LargeValue:
    """Stands for a value that was not read because it is large; `size` is its bytes of JSON. `get_job` reads it."""

    size: int

    @classmethod
    def read(cls, text: str) -> LargeValue | None:
        """Return what a marker says, or None if the text is a value."""
        return cls(int(text[1:])) if text[:1] == LARGE_MARK else None

    @classmethod
    def load(cls, data: Any) -> Any:
        """Return the LargeValue of JSON that `to_dict` made; anything else as it is."""
        return cls(data["$large_bytes"]) if isinstance(data, dict) and list(data) == ["$large_bytes"] else data

    def to_dict(self) -> dict[str, int]:
        """Return the marker as JSON types, for lists of the REST API."""
        return {"$large_bytes": self.size}


FIELDS = ("started", "completed", "attempt", "worker", "release")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job. `attempt` is its number, which repeats after a run that was not charged; `ended_at` is None while it runs."""

    attempt: int
    worker: str | None
    started_at: datetime | None
    ended_at: datetime | None = None
    release: str | None = None


def attempts_of(record: Mapping[str, str]) -> tuple[Attempt, ...]:
    """Return the attempts that a record keeps, oldest first, including the current or last one."""
    return tuple(
        Attempt(int(number) if number.isdigit() else 0, worker or None, _moment(start), _moment(end), release or None)
        for start, end, number, worker, release in attempt_rows(record)
    )


def attempt_rows(record: Mapping[str, str]) -> list[list[str]]:
    """Return the stored texts of the attempts, each with those of FIELDS."""
    lines = [line.split(US) for line in record["runs"].split(RS) if line] if "runs" in record else []
    if record.get("started"):
        start, end, number, *rest = (record.get(name, "") for name in FIELDS)
        # A crash is not charged, so its run loses its number; after the end of a crash loop that number may be 0.
        lines.append([start, end, "1" if number == "0" else number, *rest])
    return [line for line in lines if len(line) == len(FIELDS)]


def _moment(text: str) -> datetime | None:
    return from_micros(int(text)) if text.isdigit() else None


@dataclass(frozen=True, slots=True)
class RetryCheck:
    """What keeps a retry of a job from succeeding. `reason` is None if nothing is known to, else `text` explains it.

    It is ``status``, ``run_by``, ``parent`` or ``unique_key`` if a retry is refused, and ``budget`` if it fails at its start.
    `other` is the id of the parent, of the newer job with the unique key, or of the job with the budget.
    """

    reason: str | None = None
    text: str = ""
    other: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        """Return the fields as JSON types."""
        return {name: getattr(self, name) for name in RetryCheck.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class MemberCounts:
    """The exact numbers of jobs of a batch, or of children of a job. `open` ones have not ended."""

    total: int = 0
    open: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> MemberCounts:
        """Return the counts of the states of members as a store has them."""
        done, failed, cancelled = (counts.get(state, 0) for state in ("completed", "failed", "cancelled"))
        is_open = counts.get("", 0)
        return cls(is_open + done + failed + cancelled, is_open, done, failed, cancelled)

    @property
    def ended(self) -> int:
        """Return how many have ended."""
        return self.total - self.open

    @property
    def progress(self) -> float:
        """Return the part that has ended, from 0.0 to 1.0; 1.0 if there are none."""
        return self.ended / self.total if self.total else 1.0

    def to_dict(self) -> dict[str, int]:
        """Return the fields as JSON types."""
        return {name: getattr(self, name) for name in MemberCounts.__dataclass_fields__}
