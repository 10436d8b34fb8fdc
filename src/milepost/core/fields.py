"""What a field of the record is: how it is stored, shown, set and cleared. The table of them is `core.record`;
those that only stores and workers read are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from milepost.core.codecs import UNREADABLE, Codec, Derived, jsonable, pair_values
from milepost.core.options import Option

Clearing = Literal["start", "end", "wait", "complete", "requeue", "reopen", "from_start"]
"""The transition that clears a field: the start of a run, any end, the end of a pending job, a success (for fields that only
a later attempt needs), the return to pending, the continuation of a job that had ended, and a retry from the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of the record. A field without `short` is stored under its own name; a derived one may not be stored."""

    doc: str
    name: str = ""
    """Its name in Python, in JSON and in the documentation; empty for a private field of the store."""
    stored: str = ""
    short: str = ""
    """The key in the packed form of a record; one character, never reused."""
    codec: Codec | None = None
    derived: Derived | None = None
    """How the value is derived from other stored fields, if they are set."""
    default: Any = None
    """The value of a record that lacks the field or has it in a form that cannot be read."""
    listed: bool = False
    """Whether rows of lists have it."""
    large: bool = False
    """Whether a store keeps its large values beside the record. No transition may read, append to or emit such a field."""
    row: Callable[[Any], Any] = jsonable
    """The value in such a row."""
    option: Option | None = None
    """How a submit sets it."""
    indexed: bool = False
    """Whether an index finds the jobs with a value. Such a field is set at submit only, and stored as a pair
    ``:name=value`` among the labels: every store indexes these, and a job without the field costs nothing more."""
    filter: str = ""
    """Its key in the filter language and in the parameters of a list; empty: none."""
    copied: bool = False
    """Whether a new job for the failed items of this one keeps it."""
    reported: Literal["", "record", "event"] = ""
    """Whether the reports of a run set it in the record, and whether their events carry it."""
    cleared: tuple[Clearing, ...] = ()
    label: str = ""
    """Its name in `milepost show`; empty: not shown there, or shown separately."""
    example: Any = None
    """The value in the examples of OpenAPI; default: the default."""

    @property
    def key(self) -> str:
        """The name under which it is stored, before packing."""
        return self.stored or self.name

    def decode(self, record: Mapping[str, str]) -> Any:
        """Return the value in a record; the default where it is missing or cannot be read."""
        if self.derived is not None and (self.codec is None or any(name in record for name in self.derived.sources)):
            return self._read(self.derived.read, record)
        if self.indexed:
            values = pair_values(record.get("labels", ""), self.name)
            return tuple(values) if self.default == () else next(iter(values), self.default)
        text = record.get(self.key)
        return self.empty() if text is None or self.codec is None else self._read(self.codec.read, text)

    def _read(self, read: Callable[[Any], Any], stored: Any) -> Any:
        try:
            return read(stored)
        except UNREADABLE:
            return self.empty()

    def is_damaged(self, text: str) -> bool:
        """Return whether a stored text cannot be read."""
        if self.codec is None:
            return False
        try:
            self.codec.read(text)
        except UNREADABLE:
            return True
        return False

    def empty(self) -> Any:
        """Return the default; a new one each time where it can be changed."""
        return {} if self.default == {} else self.default

    def load(self, value: Any) -> Any:
        """Return the value of what a client has decoded from JSON."""
        source = self.codec or self.derived
        return source.load(value) if source is not None else value


def column(short: str, codec: Codec | None, doc: str, **more: Any) -> dict[str, Field]:
    """Return the metadata of a public field, for `dataclasses.field`."""
    return {"field": Field(doc=doc, short=short, codec=codec, **more)}


class Stored:
    """The stored form of a record, which a `Job` decodes field by field."""

    __slots__ = ("_activity", "_packed", "_record")

    _activity: str
    """What a server says of the job, which knows the whole record."""
    _packed: str | bytes
    _record: Mapping[str, str]


def _private(stored: str, short: str, doc: str, **more: Any) -> Field:
    return Field(doc=doc, stored=stored, short=short, **more)


PRIVATE: tuple[Field, ...] = (
    _private("token", "T", "The fencing token of the live lease."),
    _private("created_by_op", "O", "The operation that created the record."),
    _private("recent_ops", "o", "The newest operations of runs."),
    _private("caller_ops", "Q", "The newest operations of callers."),
    _private("update_ops", "U", "The newest updates of a manual job, or notes that the job of a task queue cannot be dispatched."),
    _private("ready", "q", "The name under which workers may claim the job: `ready_name` of its type and queue.", cleared=("start", "end")),
    _private("slot", "S", "The type under which a limit counts the lease, for jobs that may be claimed again.", cleared=("complete",)),
    _private("ready_name", "", "The name for `ready` where it is not the type.", cleared=("complete",)),
    _private("budget", "B", "The attempts that an explicit retry grants.", cleared=("complete",)),
    _private("max_crashes", "X", "The crashes after which the job fails.", cleared=("complete",)),
    _private("held", "", "The group with an open member that keeps the job from starting.", cleared=("start", "wait")),
    _private("held_before", "", "What held a paused job before it was paused.", cleared=("start", "wait")),
    _private("wake_before", "", "When a paused job that was suspended would have started.", cleared=("start", "wait")),
    _private("failed_member", "", "The id of the job because of which this one, which waited for it, was cancelled or failed.", cleared=("start", "reopen")),
    _private("wait_groups", "", "The groups that a suspended job waits for.", cleared=("start", "wait")),
    _private("closed", "", "When a batch was closed: from then on it is no open member of its own group."),
    _private("parent_attempt", "", "How often the parent was restarted, and its attempt that made the job or retried it, as `N.ATTEMPT`."),
    _private("ancestors", "", "The ids of the jobs above a child whose ledgers count what it spends: the root, and those with a budget."),
    _private("budgets_above", "", "The ids of the jobs above a child whose budgets cover it."),
    _private("detached", "", "Whether a child continues when its parent has failed or was cancelled or deleted."),
    _private("wake_at", "", "When a suspended job starts at the latest.", cleared=("start", "wait")),
    _private("suspended", "", "When the job was suspended.", cleared=("start", "wait")),
    _private("segments", "", "How often the attempt was suspended.", cleared=("start", "complete")),
    _private("ran", "", "How long the segments of the attempt ran, in microseconds.", cleared=("start", "complete")),
    _private("secrets", "", "The names of secret parameters.", copied=True),
    _private("owner_label", "", "The label whose value owned the results when a request was accepted.", copied=True),
    _private("checkpoint", "C", "The saved state of the run.", large=True, cleared=("complete", "from_start")),
    _private("cursors", "K", "The cursors of loops.", large=True, reported="record", cleared=("complete", "from_start")),
    _private("state", "", "Cursors with state.", large=True, reported="record", cleared=("complete", "from_start")),
    _private("steps", "", "The kept values of steps.", large=True, cleared=("complete", "from_start")),
    _private("questions_version", "", "How often `questions` has changed.", cleared=("from_start",)),
    _private("asking", "", "The key of the question that waits for an answer.", cleared=("complete", "from_start")),
    _private("ask_expires", "", "When that question expires.", cleared=("complete", "from_start")),
    _private("restarts", "", "How often the job was retried from its start."),
    _private("failures", "F", "The crash reports of failed attempts, the newest part."),
    _private("failures_before", "G", "The crash reports before those."),
    _private("ended", "", "The end of the last run, until the run moves to `runs`."),
    _private("runs", "V", "The runs before the current or last one."),
    _private("stale", "", "When a silent job is flagged, a job is dispatched again, or a held one is checked.", cleared=("start", "end")),
    _private("cycle_check", "", "The time after which a sweep looks whether a held job waits for itself, in microseconds; such a job is a member of a group or a child, and follows others."),
    _private("suspect", "", "Crashes of a process that ran several jobs, not charged yet.", cleared=("end",)),
    _private("only_keys", "", "The failed items that a job repeats for another one.", large=True),
    _private("task_queue", "", "The task queue that runs the job."),
    _private("dispatch_after", "", "The delay before a job of a task queue is dispatched."),
    _private("queue_message", "", "The message of the task queue, to be sent again.", large=True, cleared=("complete",)),
    _private("message_at", "", "When the task queue is to deliver that message, if it is delayed.", cleared=("start", "end")),
    _private("queue_result", "", "The result as the task queue writes it.", large=True),
    _private("stop_at", "", "When a stop was requested."),
    _private("stop_by", "", "The caller that requested it."),
    _private("stop_reason", "", "Why it was requested."),
    _private("stop_token", "", "The token of the run that is to stop."),
    _private("stopped", "", "When its code stopped."),
    _private("stop_how", "", "How its code stopped."),
    _private("stop_confirmed", "", "Whether its code was seen to stop."),
    _private("late_result", "", "What its code returned after the stop.", large=True),
    Field(
        doc="The time from the submit to the earliest start; sets `not_before`.", name="delay",
        option=Option(kind="duration", flag="--delay", help="Delay the first attempt by TIME (e.g. 90, 2h)."),
    ),
    Field(
        doc="The time from the submit to the latest first start; sets `not_after`.", name="expires_in",
        option=Option(kind="duration", flag="--expires-in", help="Fail the job if it has not started within TIME."),
    ),
    Field(
        doc="The time limit of one attempt.", name="timeout", copied=True,
        option=Option(kind="duration", low=1, flag="--timeout", help="Stop an attempt that runs longer than TIME."),
    ),
    Field(
        doc="The most that all runs of the job may spend (`run.add_usage`), as `{\"usd\": 5}`.", name="budget", stored="usage_budget", copied=True,
        option=Option(kind="amounts", flag="--budget", help="Set the most that the job may spend; may be repeated."),
    ),
    Field(
        doc="What happens once the budget is spent: the job fails, or is suspended and asks a person to raise the budget.",
        name="on_budget", copied=True,
        option=Option(kind="choice", choices=("fail", "ask"), default="fail", flag="--on-budget",
            help="Fail (default) once the budget is spent, or ask a person to raise it."),
    ),
    Field(
        doc="What happens when the process of a run dies.", name="on_lost", copied=True,
        option=Option(kind="choice", choices=("retry", "fail"), default="retry"),
    ),
    Field(
        doc="What happens to the job when one that it follows has failed, was cancelled or was deleted.", name="on_failure",
        option=Option(kind="choice", choices=("cancel", "run"), default="cancel", manual=True, flag="--on-failure",
            help="Cancel (default) or run the job if one that it starts after has failed."),
    ),
    Field(
        doc="What happens to the open children of the job, made by its run, when it has failed, was cancelled or was deleted.",
        name="children", copied=True,
        option=Option(kind="choice", choices=("cancel", "keep"), default="cancel"),
    ),
    Field(
        doc="The time without an update after which a manual job counts as stalled.", name="stale_after",
        option=Option(kind="duration", worker=False, manual=True),
    ),
    Field(
        doc="What happens then.", name="on_stale",
        option=Option(kind="choice", choices=("flag", "fail"), default="flag", worker=False, manual=True),
    ),
)  # fmt: skip
"""The fields that only stores and workers read. Those with a name are set at submit and are not part of a `Job`."""
