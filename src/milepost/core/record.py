"""The one table of the fields of a job's record.

Everything that names the fields is derived from FIELDS: the `Job` dataclass and its JSON, the stored form, what a submit
may set, the schemas of the API, the rows of lists, the client, the command line, the dashboard and the reference page.
A field is added by one row here; `python scripts/fields.py` then renews the files that are generated from it.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from milepost.core.codecs import (
    ATTEMPTS,
    BOOLEAN,
    ETA,
    FAILURE,
    FILLED_TEXT,
    FRACTION,
    HELD_BY,
    INTEGER,
    ITEM_COUNTS,
    JSON,
    LABELS,
    LARGE_JSON,
    LIMIT_KEY,
    PARAMS,
    QUESTIONS,
    QUEUE,
    RECEIPT,
    STAGES,
    STATUS,
    TEXT,
    TEXTS,
    TIME,
    USAGE,
    WAITING_FOR,
)
from milepost.core.defaults import ATTEMPTS_MAX, PRIORITY_MAX
from milepost.core.fields import PRIVATE, Clearing, Field, Stored, column
from milepost.core.options import Option
from milepost.core.values import Attempt, Eta, Failure, ItemCounts, JobStatus, Question, Receipt, Stage, WaitingFor


@dataclass(frozen=True, slots=True)
class JobFields(Stored):
    """The public fields: those of the original interface first, in its order."""

    job_id: str = field(
        metadata=column("", None, "The id.", example="0199f3a2-7c1e-7d41-b2a0-5b1f0d6f9c11", listed=True)
    )
    job_type: str = field(
        metadata=column(
            "t", TEXT, "The type: which code runs the job.", stored="type", listed=True, default="", example="ingestion"
        )
    )
    status: JobStatus = field(
        metadata=column(
            "s", STATUS, "`pending`, `running`, `completed`, `failed` or `cancelled`.",
            listed=True, default=JobStatus.FAILED, example="completed",
        )
    )  # fmt: skip
    progress: float = field(
        metadata=column(
            "p", FRACTION, "The done part, from 0.0 to 1.0.", listed=True, reported="event", default=0.0, example=1.0
        )
    )
    message: str = field(
        metadata=column(
            "m", TEXT, "What the job does now, in one line of at most 1 KiB.",
            listed=True, reported="event", cleared=("start", "reopen"), default="", example="412 chunks of report.pdf",
        )
    )  # fmt: skip
    created_at: datetime = field(
        metadata=column(
            "c", TIME, "When the job was submitted.", stored="created", listed=True, label="created",
            example="2026-11-25T09:30:00.123456+00:00",
        )
    )  # fmt: skip
    started_at: datetime | None = field(
        default=None,
        metadata=column(
            "b", TIME, "When the current or last run started.", stored="started", listed=True, label="started",
            cleared=("requeue", "reopen"), example="2026-11-25T09:30:00.127301+00:00",
        ),
    )  # fmt: skip
    completed_at: datetime | None = field(
        default=None,
        metadata=column(
            "z", TIME, "When the job completed, failed or was cancelled.", stored="completed", listed=True, label="ended",
            cleared=("reopen",), example="2026-11-25T09:31:12.804417+00:00",
        ),
    )  # fmt: skip
    error: str | None = field(
        default=None,
        metadata=column("e", TEXT, "The last error, in one line.", listed=True, cleared=("start", "reopen")),
    )
    result: Any = field(
        default=None,
        metadata=column(
            "r", LARGE_JSON, "What the job returned: JSON of at most 1 MiB.", large=True, cleared=("reopen",),
            example={"chunks": 412},
        ),
    )  # fmt: skip
    metadata: dict[str, Any] | None = field(
        default=None,
        metadata=column(
            "d", JSON, "JSON of the submitter, which milepost does not interpret.", copied=True,
            option=Option(kind="object", manual=True), example={"filename": "report.pdf"},
        ),
    )  # fmt: skip
    run_by: str = field(
        default="manual",
        metadata=column(
            "D", TEXT, "What runs the job: `worker`, `track`, `external` (a task queue), or `manual`: its caller.", listed=True, label="run by",
            filter="run_by", example="worker",
        ),
    )  # fmt: skip
    params: dict[str, Any] | None = field(
        default=None,
        metadata=column(
            "P", LARGE_JSON, "The parameters of the handler; secret ones are shown as `***`.", derived=PARAMS, large=True,
            copied=True, example={"path": "report.pdf"},
        ),
    )  # fmt: skip
    labels: dict[str, str] = field(
        default_factory=dict,
        metadata=column(
            "l", LABELS, "Up to 16 pairs of text to filter by.", listed=True, label="labels", copied=True,
            option=Option(kind="labels", manual=True, flag="--label", help="Add a label; may be repeated."),
            example={"owner": "ana"},
        ),
    )  # fmt: skip
    priority: int = field(
        default=0,
        metadata=column(
            "y", INTEGER, "From -100 to 100; jobs with a higher one start first.", label="priority", copied=True,
            option=Option(
                kind="whole", low=-PRIORITY_MAX, high=PRIORITY_MAX, default=0,
                flag="--priority", help="Priority; higher runs first (default 0).",
            ),
        ),
    )  # fmt: skip
    attempt: int = field(
        default=0,
        metadata=column(
            "a", INTEGER, "The number of the current or last attempt; 0 before the first.", listed=True,
            label="attempt", example=1,
        ),
    )  # fmt: skip
    max_attempts: int = field(
        default=1,
        metadata=column(
            "A", INTEGER, "How many attempts the job may have.", listed=True, copied=True,
            option=Option(
                kind="whole", low=1, high=ATTEMPTS_MAX, flag="--max-attempts", help="Maximum number of attempts."
            ),
            example=3,
        ),
    )  # fmt: skip
    crashes: int = field(
        default=0,
        metadata=column("x", INTEGER, "How many crashes of its runs the crash budget has counted.", label="crashes"),
    )
    not_before: datetime | None = field(
        default=None,
        metadata=column(
            "n", TIME, "The earliest start.", label="not before",
            option=Option(kind="time"),
        ),
    )  # fmt: skip
    not_after: datetime | None = field(
        default=None,
        metadata=column(
            "N", TIME, "The latest first start; a job that has not started by then fails.", label="not after",
            cleared=("start", "complete"),
            option=Option(kind="time"),
        ),
    )  # fmt: skip
    updated_at: datetime | None = field(
        default=None,
        metadata=column(
            "u", TIME, "When the record last changed.", stored="updated", listed=True,
            example="2026-11-25T09:31:12.804417+00:00",
        ),
    )  # fmt: skip
    version: int = field(
        default=0,
        metadata=column(
            "v", INTEGER, "The number of accepted changes; the newest event has the same number.", listed=True, example=9,
        ),
    )  # fmt: skip
    worker: str | None = field(
        default=None,
        metadata=column(
            "w", TEXT, "The worker or process that has or had the job.", listed=True, label="worker",
            cleared=("requeue",), example="host-1:4711:1555552:1642e3e9:1",
        ),
    )  # fmt: skip
    release: str | None = field(
        default=None,
        metadata=column(
            "R", TEXT, "The release of the code of the current or last attempt.", label="release", filter="release",
            example="2.4.0",
        ),
    )  # fmt: skip
    attempts: tuple[Attempt, ...] = field(
        default=(),
        metadata=column(
            "", None, "The attempts with worker, release, start and end, oldest first; of very many the newest.",
            derived=ATTEMPTS, default=(), label="attempts",
            example=[{
                "attempt": 1, "worker": "host-1:4711:1555552:1642e3e9:1", "release": "2.4.0",
                "started_at": "2026-11-25T09:30:00.127301+00:00", "ended_at": "2026-11-25T09:31:12.804417+00:00",
            }],
        ),
    )  # fmt: skip
    lease_expires_at: datetime | None = field(
        default=None,
        metadata=column(
            "L", TIME, "When the run counts as lost unless it renews its lease.", stored="lease", label="lease until"
        ),
    )
    waiting_for: WaitingFor | None = field(default=None, metadata=column("", WAITING_FOR, "Why a pending job has not started, or the open question of a running one.", derived=HELD_BY, listed=True))  # fmt: skip
    parent_id: str | None = field(
        default=None,
        metadata=column(
            "", TEXT, "The id of the job that this one belongs to.", label="parent", indexed=True, filter="parent",
            option=Option(kind="text", manual=True, limit=128, flag="--parent-id", help="Set the id of the parent job."),
        ),
    )  # fmt: skip
    group: str | None = field(
        default=None,
        metadata=column(
            "", TEXT, "The group that the job is a member of.", label="group", listed=True, indexed=True, filter="group",
            option=Option(kind="text", manual=True, limit=128, flag="--group", help="Make the job a member of a group."),
        ),
    )  # fmt: skip
    after: tuple[str, ...] = field(
        default=(),
        metadata=column(
            "", TEXTS, "What the job follows, each as `job:ID`, `children:ID` or `group:NAME`. It starts when none "
            "of these has an open member.", label="after", indexed=True, filter="after",
            option=Option(kind="groups", manual=True, limit=160, high=100, choices=("job:", "children:", "group:"),
                flag="--after", help="Start after job:ID, group:NAME or children:ID has ended; may be repeated.",
            ),
        ),
    )  # fmt: skip
    child_key: str | None = field(default=None, metadata=column("", TEXT, "The key under which a run of its parent made the job.", label="child key"))  # fmt: skip
    queue: str | None = field(
        default=None,
        metadata=column(
            "", TEXT, "Which workers serve the job; by default those that serve its type.", label="queue", listed=True,
            derived=QUEUE, indexed=True, filter="queue", example="ingestion",
            option=Option(kind="text", limit=128, flag="--queue", help="Set the queue whose workers serve the job."),
        ),
    )  # fmt: skip
    limit_key: str | None = field(
        default=None,
        metadata=column(
            "", TEXT, "What a limit counts the job under; by default its type.",
            derived=LIMIT_KEY, indexed=True, filter="limit_key", example="ingestion",
            option=Option(kind="text", limit=128, flag="--limit-key", help="Set what a limit counts the job under."),
        ),
    )  # fmt: skip
    partition: str | None = field(
        default=None,
        metadata=column(
            "", TEXT, "A unit that shares capacity with others, for example a tenant: partitions take turns, and a limit may hold for each.",
            label="partition", indexed=True, filter="partition",
            option=Option(kind="text", limit=128, flag="--partition", help="Set the partition, for example a tenant."),
        ),
    )  # fmt: skip
    schedule: str | None = field(default=None, metadata=column("", TEXT, "The schedule that made the job.", label="schedule", listed=True, indexed=True, filter="schedule", example="nightly"))  # fmt: skip
    scheduled_at: datetime | None = field(default=None, metadata=column("", TIME, "The tick of the schedule that the job was made for.", stored="scheduled", label="scheduled for", example="2026-11-25T09:30:00+00:00"))  # fmt: skip
    unique_key: str | None = field(
        default=None,
        metadata=column(
            "k", TEXT, "At most one pending or running job has this key.", label="unique key",
            option=Option(
                kind="text", manual=True,
                flag="--unique-key", help="Allow one active job with this KEY.",
            ),
            example="report.pdf",
        ),
    )  # fmt: skip
    stages: tuple[Stage, ...] = field(
        default=(),
        metadata=column(
            "g", STAGES, "The stages of the run.", reported="event", cleared=("start",), default=(),
            example=[{
                "name": "embed", "weight": 1.0, "done": 412, "total": 412, "unit": "chunk", "parent": None,
                "started_at": "2026-11-25T09:30:00.127301+00:00", "ended_at": "2026-11-25T09:31:12.804417+00:00",
            }],
        ),
    )  # fmt: skip
    item_counts: ItemCounts | None = field(
        default=None,
        metadata=column(
            "i", ITEM_COUNTS, "The numbers of processed, skipped and failed items of the run.", reported="record", cleared=("start",), listed=True,
            row=lambda counts: counts and {"done": counts.done, "failed": counts.failed},
            example={"done": 412, "failed": 0, "skipped": 0, "failed_keys": [], "first_errors": []},
        ),
    )  # fmt: skip
    eta: Eta | None = field(
        default=None,
        metadata=column(
            "E", ETA, "The range in which the job is expected to end.", reported="event",
            cleared=("start", "end", "requeue"), listed=True,
        ),
    )  # fmt: skip
    expected_start: Eta | None = field(
        default=None, metadata=column("", ETA, "The range in which a pending job is expected to start.", label="starts")
    )
    stalled: str | None = field(
        default=None,
        metadata=column(
            "", FILLED_TEXT, "Why the job seems to make no progress.", reported="event",
            cleared=("start", "end", "requeue"), listed=True, label="stalled",
        ),
    )  # fmt: skip
    receipt: Receipt | None = field(
        default=None,
        metadata=column(
            "", None, "How the code stopped after a cancel, timeout or delete.", derived=RECEIPT, label="stop"
        ),
    )
    failure: Failure | None = field(
        default=None,
        metadata=column("f", FAILURE, "The crash report of the last attempt.", cleared=("start", "reopen")),
    )
    checkpoint_at: datetime | None = field(
        default=None,
        metadata=column(
            "h", TIME, "When the run last saved a checkpoint.", label="checkpoint", cleared=("from_start",),
            example="2026-11-25T09:31:05.001244+00:00",
        ),
    )  # fmt: skip
    state_error: str | None = field(
        default=None,
        metadata=column(
            "", FILLED_TEXT, "Why the newest state of a loop was not saved.", reported="record",
            cleared=("start", "complete", "from_start"), label="state not saved",
        ),
    )  # fmt: skip
    result_error: str | None = field(default=None, metadata=column("", TEXT, "Why a completed job has no result: what is not JSON, where, and the remedy.", cleared=("reopen",)))  # fmt: skip
    result_text: str | None = field(default=None, metadata=column("", TEXT, "The text of such a result: its `repr()`, redacted and cut to 8 KiB.", cleared=("reopen",)))  # fmt: skip
    questions: tuple[Question, ...] = field(default=(), metadata=column("", QUESTIONS, "The questions of `run.ask` with their answers, and answers given before the question.", large=True, cleared=("from_start",)))  # fmt: skip
    output_bytes: int = field(default=0, metadata=column("", INTEGER, "The size of the text that runs of the job have written with `run.output`, in bytes.", label="output"))  # fmt: skip
    usage: dict[str, float] = field(default_factory=dict, metadata=column("", USAGE, "What all runs of the job have spent, added with `run.add_usage`.", listed=True, reported="record", label="usage", example={"tokens": 812, "usd": 0.004}))  # fmt: skip
    open_children: int = field(default=0, metadata=column("", INTEGER, "How many children were open when the code of the completed job returned.", cleared=("reopen",), label="children left open"))  # fmt: skip
    retry_of: str | None = field(default=None, metadata=column("", TEXT, "The id of the job whose failed items this one repeats.", label="retry of"))  # fmt: skip
    trace: str | None = field(
        default=None,
        metadata=column(
            "W", TEXT, "The W3C trace context of the submit.", label="trace",
            option=Option(kind="text", manual=True, http=False),
            example="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    )  # fmt: skip
    origin: str = field(
        default="local",
        metadata=column(
            "", TEXT, "`api` if created by an HTTP request, `local` if by code with access to the store.", copied=True,
            example="api",
        ),
    )  # fmt: skip
    progress_known: bool = field(default=True, metadata=column("j", BOOLEAN, "Whether `progress` counts all stages.", listed=True, reported="event", cleared=("start",)))  # fmt: skip


def _public() -> tuple[Field, ...]:
    rows = []
    for row in fields(JobFields):
        known: Field = row.metadata["field"]
        default = known.default
        if row.default is not MISSING:
            default = row.default
        elif row.default_factory is not MISSING:
            default = row.default_factory()
        rows.append(replace(known, name=row.name, default=default))
    return tuple(rows)


PUBLIC = _public()
"""The fields of a `Job`, in their order."""
FIELDS = (*PUBLIC, *PRIVATE)
BY_NAME = {one.name: one for one in FIELDS if one.name not in ("", "job_id")}
OPTIONS = {one.name: one.option for one in FIELDS if one.option is not None}
"""What a submit may set, by the name of the field."""
LISTED = tuple(one for one in PUBLIC if one.listed)
"""What a row of a list shows; its stage, its title and whether it is stopping are added to it."""
REPORTED = tuple(one.key for one in FIELDS if one.reported)
REPORTED_IN_EVENTS = tuple(one.key for one in FIELDS if one.reported == "event")


def cleared(by: Clearing) -> tuple[str, ...]:
    """Return the stored names of the fields that a transition clears."""
    return tuple(one.key for one in FIELDS if by in one.cleared)
