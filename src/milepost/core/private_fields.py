"""The fields of a record that only stores and workers read; part of the table in `core.record`."""

from __future__ import annotations

from typing import Any

from milepost.core.fields import Field
from milepost.core.options import Option


def _private(stored: str, short: str, doc: str, **more: Any) -> Field:
    return Field(doc=doc, stored=stored, short=short, **more)


PRIVATE: tuple[Field, ...] = (
    _private("token", "T", "The fencing token of the live lease."),
    _private("created_by_op", "O", "The operation that created the record."),
    _private("recent_ops", "o", "The newest operations of runs."),
    _private("caller_ops", "Q", "The newest operations of callers."),
    _private("update_ops", "U", "The newest updates of a manual job."),
    _private("ready", "q", "The name under which workers may claim the job: `ready_name` of its type and queue.", cleared=("start", "end")),
    _private("slot", "S", "The type under which a limit counts the lease, for jobs that may be claimed again.", cleared=("complete",)),
    _private("ready_name", "", "The name for `ready` where it is not the type.", cleared=("complete",)),
    _private("budget", "B", "The attempts that an explicit retry grants.", cleared=("complete",)),
    _private("max_crashes", "X", "The crashes after which the job fails.", cleared=("complete",)),
    _private("secrets", "", "The names of secret parameters.", copied=True),
    _private("checkpoint", "C", "The saved state of the run.", large=True, cleared=("complete", "from_start")),
    _private("cursors", "K", "The cursors of loops.", large=True, reported="record", cleared=("complete", "from_start")),
    _private("state", "", "Cursors with state.", large=True, reported="record", cleared=("complete", "from_start")),
    _private("failures", "F", "The crash reports of failed attempts, the newest part."),
    _private("failures_before", "G", "The crash reports before those."),
    _private("ended", "", "The end of the last run, until the run moves to `runs`."),
    _private("runs", "V", "The runs before the current or last one."),
    _private("stale", "", "When a silent job is flagged, or a job is dispatched again.", cleared=("start", "end")),
    _private("suspect", "", "Crashes of a process that ran several jobs, not charged yet.", cleared=("end",)),
    _private("only_keys", "", "The failed items that a job repeats for another one.", large=True),
    _private("task_queue", "", "The task queue that runs the job."),
    _private("dispatch_after", "", "The delay before a job of a task queue is dispatched."),
    _private("queue_message", "", "The message of the task queue, to be sent again.", large=True, cleared=("complete",)),
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
        option=Option(kind="duration", flag="--timeout", help="Stop an attempt that runs longer than TIME."),
    ),
    Field(
        doc="What happens when the process of a run dies.", name="on_lost", copied=True,
        option=Option(kind="choice", choices=("retry", "fail"), default="retry"),
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
