"""The details of one job, `milepost show`, and of its runs: where each one ran, and how it ended. Unknown facts are omitted."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from milepost.cli import formatting
from milepost.cli.job_selection import may_be_retried
from milepost.cli.rendering.live import receipt_text, run_duration
from milepost.cli.rendering.progress import (
    left_text,
    stage_label,
    stage_line,
    start_range,
    state_of,
    style_of,
)
from milepost.cli.rendering.tables import print_table, print_value
from milepost.cli.rendering.terminal import MUTED, STYLES, bar, cells, clean, glyph, pad
from milepost.core.activity import LOOP_STAGE, counted, is_between_runs, left_open, open_stage, progress_text
from milepost.core.codecs import decode_dataclass
from milepost.core.defaults import ATTEMPTS_MAX
from milepost.core.errors import ChildFailedError
from milepost.core.events import STATUS_KINDS, Event
from milepost.core.job import Failure, Job, JobStatus, Stage
from milepost.core.record import PUBLIC
from milepost.core.usage import amount_text
from milepost.core.values import Attempt, Question

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


MAX_LOG_LINES = 10
MAX_FAILED_ITEMS = 10
BAR = 40


def print_job(
    console: Console,
    job: Job,
    *,
    utc: bool,
    short: str,
    events: Sequence[Event] = (),
    instead_of_retry: Sequence[str] | None = None,
) -> None:
    """Print a job: progress, facts, runs, stages, failure, open questions, result, parameters.

    `short` is its id in the next steps. `events` say how earlier runs ended. `instead_of_retry` are the
    next steps if a retry would not succeed.
    """
    from rich.text import Text

    state = state_of(job)
    head = Text(glyph(console, state) + " ", STYLES[state]).append(clean(job.job_type), "bold")
    head.append(f"  {job.job_id}").append(f"  {state}", STYLES[state])
    console.print(head)
    _print_progress(console, job)
    console.print()
    print_facts(console, _facts(job, utc))
    if has_earlier_runs(job):
        _heading(console, "Runs")
        print_table(console, runs_table(job, events, utc=utc))
    if job.stages:
        _heading(console, "Stages of the last run" if is_between_runs(job) else "Stages")
        label = max(cells(stage_label(stage.name)) for stage in job.stages)
        for stage in job.stages:
            if stage.ended_at is not None:
                console.print(Text("  ").append_text(stage_line(console, stage, label)))
            else:
                line = Text("  " + glyph(console, state) + " ", STYLES[state])
                if name := stage_label(stage.name):
                    line.append(pad(name, label) + "  ")
                console.print(line.append(formatting.units(stage.done, stage.total, stage.unit), MUTED))
    if job.item_counts is not None and job.item_counts.failed:
        _heading(console, f"Failed items ({formatting.number(job.item_counts.failed)})")
        shown = job.item_counts.first_errors[:MAX_FAILED_ITEMS]
        for error in shown:
            console.print(Text("  " + clean(error)))
        if more := job.item_counts.failed - len(shown):
            console.print(Text(f"  and {formatting.number(more)} more", MUTED))
    if job.failure is not None:
        _print_failure(console, job.failure, utc)
    if job.result_error is not None:
        _heading(console, "Text of the result that was not stored")
        for text in (job.result_text or "").splitlines():
            console.print(Text("  " + clean(text)))
    if waiting := _open_questions(job):
        _heading(console, "Open questions")
        width = max(cells(clean(one.key)) for one in waiting)
        for one in waiting:
            console.print(Text(f"  {pad(clean(one.key), width)}  {clean(one.prompt or '')}"))
            if one.expires_at is not None:
                console.print(
                    Text(
                        f"  {pad('', width)}  expires {formatting.timestamp(datetime.fromisoformat(one.expires_at), utc=utc)}",
                        MUTED,
                    )
                )
    for title, value in (("Result", job.result), ("Parameters", job.params), ("Metadata", job.metadata)):
        if value is not None and value != {}:
            _heading(console, title)
            print_value(console, value if not isinstance(value, Mapping) else _without_repeats(value))
    console.print()
    steps = _steps(job, short, instead_of_retry=instead_of_retry)
    console.print(Text("Next: ", MUTED).append(f" {glyph(console, 'dot')} ".join(steps)))


def _print_progress(console: Console, job: Job) -> None:
    from rich.text import Text

    stage = open_stage(job.stages)
    line = Text("  ").append_text(bar(console, job.progress, min(BAR, max(10, console.width - 40)), style_of(job)))
    line.append(f"  {progress_text(job)}")
    if stage is not None and not job.is_terminal and not is_between_runs(job):
        shown = (stage_label(stage.name), formatting.units(stage.done, stage.total, stage.unit))
        line.append("".join(f"  {part}" for part in shown if part))
    if left := left_text(job):
        line.append(f"  {left}")
    console.print(line)
    if job.activity:
        console.print(Text(f"  {clean(job.activity)}", MUTED))


def _facts(job: Job, utc: bool) -> list[tuple[str, str]]:
    facts = []
    for one in PUBLIC:
        if one.label:
            show = _SHOWN.get(one.name)
            value = getattr(job, one.name)
            facts.append((one.label, _plain(value, utc) if show is None else show(job, utc)))
            if one.name == "completed_at":
                has_duration = job.started_at is not None and job.status is not JobStatus.PENDING
                is_lost = job.failure is not None and job.failure.is_lost
                took = ("lost after" if is_lost else "took") if job.is_terminal else "running for"
                facts.append((took, run_duration(job) if has_duration else ""))
                # The only sign of code that hangs until the job is flagged as stalled: its worker renews the lease.
                if job.status is JobStatus.RUNNING and job.updated_at is not None and job.stalled is None:
                    facts.append(("last change", formatting.age(job.updated_at)))
    facts.append(("unreadable", ", ".join(job.corrupt)))
    return [(name, clean(text)) for name, text in facts if text]


def _plain(value: Any, utc: bool) -> str:
    """Return the value of a field as text; what is empty, 0 included, is not shown."""
    if isinstance(value, datetime):
        return formatting.timestamp(value, utc=utc)
    if isinstance(value, Mapping):
        return "  ".join(f"{name}={inner}" for name, inner in value.items())
    if isinstance(value, bool):
        return "yes" if value else ""
    return str(value or "")


def _created(job: Job, utc: bool) -> str:
    return (
        f"{formatting.timestamp(job.created_at, utc=utc)}  ({formatting.age(job.created_at)})"
        if job.created_at is not None
        else ""
    )


def _attempt(job: Job) -> str:
    is_limited = is_attempt_limit(job.max_attempts)
    if job.attempt:
        return f"{job.attempt} of {job.max_attempts}" if is_limited else str(job.attempt)
    charged = "none charged" if job.attempts else "none yet"
    return f"{charged} (at most {job.max_attempts})" if is_limited and job.max_attempts > 1 else ""


def is_attempt_limit(attempts: int) -> bool:
    """Return whether a `max_attempts` limits a job; the greatest is that of tasks whose own task queue does."""
    return attempts < ATTEMPTS_MAX


_SHOWN: dict[str, Callable[[Job, bool], str]] = {
    "created_at": _created,
    "attempt": lambda job, utc: _attempt(job),
    "worker": lambda job, utc: shown_worker(job.worker),
    "after": lambda job, utc: "  ".join(job.after),
    "attempts": lambda job, utc: "",  # the section Runs
    "output_bytes": lambda job, utc: formatting.size(job.output_bytes) if job.output_bytes else "",
    "expected_start": lambda job, utc: formatting.start_text(start_range(job)),
    "usage": lambda job, utc: "  ".join(f"{name}={amount_text(amount)}" for name, amount in job.usage.items()),
    "receipt": lambda job, utc: receipt_text(job).lstrip(" ,") if job.receipt is not None else "",
}
"""The fields that are not shown as they are."""


def print_facts(console: Console, facts: list[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2), pad_edge=False)
    grid.add_column(style=MUTED, no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts:
        grid.add_row(Text("  " + name), Text(value))
    print_table(console, grid)


def _print_failure(console: Console, failure: Failure, utc: bool) -> None:
    from rich.text import Text

    _heading(console, f"Failure ({failure.kind})")
    known: list[tuple[str, Any]] = [
        ("error", f"{failure.type}: {failure.message}" if failure.type else failure.message),
        ("in stage", failure.last_stage),
        ("last item", failure.last_item),
        ("signal", failure.exit_signal),
        ("exit code", failure.exit_code),
        ("peak memory", formatting.size(failure.peak_memory) if failure.peak_memory else None),
        ("process", f"{failure.host}:{failure.pid}" if failure.pid else failure.host),
        ("versions", "  ".join(f"{name} {version}" for name, version in (failure.versions or {}).items())),
    ]
    print_facts(console, [(name, clean(value)) for name, value in known if value not in (None, "")])
    if failure.last_log:
        console.print(Text("  last log lines", MUTED))
        for line in failure.last_log[-MAX_LOG_LINES:]:
            console.print(Text("    " + clean(line)))
    if failure.traceback:
        console.print(Text("  traceback", MUTED))
        for line in failure.traceback.rstrip().splitlines():
            library = "site-packages" in line or "/lib/python" in line
            console.print(Text("    " + clean(line), MUTED if library else ""))


def _heading(console: Console, title: str) -> None:
    from rich.text import Text

    console.print(Text("\n" + title, "bold"))


def _without_repeats(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested objects as dotted names, one level deep, so that each value has its own line."""
    shown: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner and any(isinstance(part, list | Mapping) for part in inner.values()):
            shown.update((f"{name}.{key}", part) for key, part in inner.items())
        else:
            shown[name] = inner
    return shown


def _open_questions(job: Job) -> list[Question]:
    return [] if job.is_terminal else [one for one in job.questions if one.state == "open"]


def _steps(job: Job, short: str, *, instead_of_retry: Sequence[str] | None) -> list[str]:
    if waiting := _open_questions(job):
        return [
            f"milepost answer {short} {shlex.quote(clean(waiting[0].key))} {_answer_form(waiting[0])}",
            f"milepost cancel {short}",
        ]
    if not job.is_terminal:
        return [f"milepost watch {short}", f"milepost cancel {short}"]
    steps = [f"milepost logs {short}"]
    if job.failure is not None and (job.failure.type or "").endswith(ChildFailedError.__name__):
        steps.insert(0, f"milepost tree {short}")
    if instead_of_retry is not None:
        steps[:0] = instead_of_retry
    elif may_be_retried(job):
        steps.insert(0, f"milepost retry {short}")
    return [*steps, f"milepost rm {short}"]


def _answer_form(question: Question) -> str:
    """Return what an answer looks like: the fields of an object by their types, else VALUE."""
    schema = question.json_schema
    fields = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(fields, Mapping) or not fields:
        return "VALUE"
    named = (f"{json.dumps(name)}: {_placeholder(field)}" for name, field in fields.items())
    return clean(shlex.quote(f"{{{', '.join(named)}}}"))


def _placeholder(field: Any) -> str:
    kind = field.get("type") if isinstance(field, Mapping) else None
    return {"boolean": "true", "string": '"TEXT"', "integer": "NUMBER", "number": "NUMBER"}.get(str(kind), "VALUE")


_ENDS = {"retrying": "failed", "released": "given back to the queue", "running": "lost"}
"""What the event that ended a run says of it, where that is not its own name. A tracked block is lost when it starts again."""


def has_earlier_runs(job: Job) -> bool:
    """Return whether a run of the job has ended and another one follows."""
    return len(job.attempts) > 1 or (
        bool(job.attempts) and not job.is_terminal and job.attempts[-1].ended_at is not None
    )


def runs_table(job: Job, events: Sequence[Event], *, utc: bool) -> Table:
    """Return a line for each run of a job: its attempt, start, worker and release, and how it ended, as its events say."""
    from rich.table import Table
    from rich.text import Text

    ends = _end_events(job.attempts, [event for event in events if event.kind in STATUS_KINDS])
    grid = Table.grid(padding=(0, 2), pad_edge=False)
    has_release = any(run.release for run in job.attempts)
    for name in ("attempt", "started", "worker", *(("release",) if has_release else ())):
        grid.add_column(no_wrap=True, style=MUTED if name != "worker" else "")
    grid.add_column(overflow="fold")
    open_run = "suspended" if job.status is JobStatus.PENDING else "running"
    for run, end in zip(job.attempts, ends, strict=True):
        start = "" if run.started_at is None else formatting.timestamp(run.started_at, utc=utc)
        columns = [f"  {run.attempt}", start, shown_worker(run.worker)]
        if has_release:
            columns.append(run.release or "")
        history = "; ".join(part for part in (_resumed(run, events), _end(run, end, utc) or open_run) if part)
        grid.add_row(*map(Text, columns), Text(clean(history)))
    return grid


def shown_worker(name: str | None) -> str:
    """Return the host and pid of a worker name, without the part that distinguishes a reused pid."""
    return ":".join((name or "").split(":")[:2])


def _resumed(run: Attempt, events: Sequence[Event]) -> str:
    """Return where the first loop of a run continued: ``Scanning: resumed at item 41 of 100, 40 passed over``."""
    for event in events:
        if event.kind == "log" and _is_within(run, event.at):
            for line in event.data.get("lines", ()):
                if "resumed" in line:
                    return str(line.get("text", ""))
    return ""


def _is_within(run: Attempt, at: datetime | None) -> bool:
    """Return whether an event of this time belongs to the run."""
    if at is None or run.started_at is None or at < run.started_at:
        return False
    return run.ended_at is None or at <= run.ended_at


def _end_events(runs: Sequence[Attempt], events: Sequence[Event]) -> list[Event | None]:
    """Return the event that ended each run. A run that was given back may start again in the same request, at the same time."""
    left = sorted(events, key=lambda event: event.kind == "running")  # this ends a run only if nothing else did
    found: list[Event | None] = []
    for run in runs:
        event = next((event for event in left if event.at == run.ended_at), None)
        if event is not None:
            left.remove(event)
        found.append(event)
    return found


def _end(run: Attempt, event: Event | None, utc: bool) -> str:
    """Return how a run ended: ``lost 12:03:11 at 40 of 100 pages in Scanning: lease expired (last held by ...)``; else empty."""
    if run.ended_at is None:
        return ""
    when = formatting.clock(run.ended_at, utc=utc)
    if event is None:
        return f"ended {when}"
    is_lost = "crashes" in event.data or "suspect" in event.data
    how = "lost" if is_lost else _ENDS.get(event.kind, event.kind)
    where = _position(event.data) if is_lost else ""
    if event.kind == "completed":
        return f"{how} {when} {left_open(event.data.get('open_children', 0))}".rstrip()
    why = event.message if event.kind == "released" else event.data.get("error")
    return f"{how} {when}{where}" + (f": {why}" if why else "")


def _position(data: Mapping[str, Any]) -> str:
    """Return what the open stage of a lost run had done."""
    rows = data.get("stages")
    stage = open_stage([decode_dataclass(Stage, row) for row in rows]) if isinstance(rows, list) else None
    done = "" if stage is None else counted(stage)
    if stage is None or not done:
        return ""
    return f" at {done}" + ("" if stage.name == LOOP_STAGE else f" in {stage.name}")
