"""All that is known of one job, for people. Owns the order of what is told; leaves out what is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from milepost.cli import wording
from milepost.cli.drawing.console import MUTED, STYLES, bar, cells, clean, glyph, padded
from milepost.cli.drawing.results import print_table, print_value
from milepost.cli.drawing.running import stage_line, style_of
from milepost.cli.drawing.views import receipt_text, took
from milepost.cli.pace import leaf, left_of, start_of
from milepost.core.job import Failure, Job, JobStatus

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

LOG_SHOWN = 10
FAILED_ITEMS_SHOWN = 10
BAR = 40


def print_job(console: Console, job: Job, *, utc: bool, short: str) -> None:
    """Print a job: what it is and how far, its times, stages, result, failure, parameters. `short` names it in the hints."""
    from rich.text import Text

    state = "stalled" if job.stalled and not job.is_terminal else job.status.value
    head = Text(glyph(console, state) + " ", STYLES[state]).append(clean(job.job_type), "bold")
    head.append(f"  {job.job_id}").append(f"  {state}", STYLES[state])
    console.print(head)
    _print_progress(console, job)
    console.print()
    print_facts(console, _facts(job, utc))
    if job.stages:
        _heading(console, "Stages")
        label = max(cells(stage.name) for stage in job.stages)
        for stage in job.stages:
            if stage.ended_at is not None:
                console.print(Text("  ").append_text(stage_line(console, stage, label)))
            else:
                line = Text("  " + glyph(console, state) + " ", STYLES[state]).append(padded(clean(stage.name), label))
                console.print(line.append("  " + wording.units(stage.done, stage.total, stage.unit), MUTED))
    if job.item_counts is not None and job.item_counts.failed:
        _heading(console, f"Failed items ({wording.number(job.item_counts.failed)})")
        for error in job.item_counts.first_errors[:FAILED_ITEMS_SHOWN]:
            console.print(Text("  " + clean(error)))
    if job.failure is not None:
        _print_failure(console, job.failure, utc)
    for title, value in (("Result", job.result), ("Parameters", job.params), ("Metadata", job.metadata)):
        if value is not None and value != {}:
            _heading(console, title)
            print_value(console, value if not isinstance(value, Mapping) else _without_repeats(value))
    console.print()
    steps = _steps(job, short)
    console.print(Text("Next: ", MUTED).append(f" {glyph(console, 'dot')} ".join(steps)))


def _print_progress(console: Console, job: Job) -> None:
    from rich.text import Text

    stage = leaf(job.stages)
    line = Text("  ").append_text(bar(console, job.progress, min(BAR, max(10, console.width - 40)), style_of(job)))
    line.append(f"  {wording.percent(job.progress)}")
    if stage is not None and not job.is_terminal:
        line.append(f"  {clean(stage.name)}  {wording.units(stage.done, stage.total, stage.unit)}")
    left = left_of(job)
    if left is not None:
        line.append(f"  {wording.time_left(*left)}")
    console.print(line)
    if job.message and job.message != "Job created":
        console.print(Text(f"  {clean(job.message)}", MUTED))


def _facts(job: Job, utc: bool) -> list[tuple[str, str]]:
    def at(moment: datetime | None) -> str:
        return wording.stamp(moment, utc=utc) if moment is not None else ""

    created = at(job.created_at) + f"  ({wording.age(job.created_at)})"
    facts = [
        ("created", created),
        ("started", at(job.started_at)),
        ("ended", at(job.completed_at)),
        ("took" if job.is_terminal else "runs for", took(job) if job.started_at is not None else ""),
        ("cancelled", receipt_text(job).strip() if job.receipt is not None else ""),
        ("attempt", f"{job.attempt} of {job.max_attempts}" if job.driver == "worker" else str(job.attempt or "")),
        ("crashes", str(job.crashes or "")),
        ("driven by", job.driver),
        ("worker", shown_worker(job.worker)),
        ("lease until", at(job.lease_expires_at)),
        ("not before", at(job.not_before)),
        ("not after", at(job.not_after)),
        ("starts", wording.start_in(start_of(job))),
        ("waits for", job.waiting_for or ""),
        ("stalled", job.stalled or ""),
        ("checkpoint", at(job.checkpoint_at)),
        ("priority", str(job.priority or "")),
        ("labels", "  ".join(f"{name}={value}" for name, value in job.labels.items())),
        ("unique key", job.unique_key or ""),
        ("parent", job.parent_id or ""),
        ("retry of", job.retry_of or ""),
        ("trace", job.trace or ""),
        ("unreadable", ", ".join(job.corrupt)),
    ]
    return [(name, clean(value)) for name, value in facts if value]


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
        ("peak memory", wording.size(failure.peak_memory) if failure.peak_memory else None),
        ("process", f"{failure.host}:{failure.pid}" if failure.pid else failure.host),
        ("versions", "  ".join(f"{name} {version}" for name, version in (failure.versions or {}).items())),
    ]
    print_facts(console, [(name, clean(value)) for name, value in known if value not in (None, "")])
    if failure.last_log:
        console.print(Text("  last log lines", MUTED))
        for line in failure.last_log[-LOG_SHOWN:]:
            console.print(Text("    " + clean(line)))
    if failure.traceback:
        console.print(Text("  traceback", MUTED))
        for line in failure.traceback.rstrip().splitlines():
            library = "site-packages" in line or "/lib/python" in line
            console.print(Text("    " + clean(line), MUTED if library else ""))


def shown_worker(name: str | None) -> str:
    """The name of a worker or process for people: its host and pid; what tells a reused pid apart is left out."""
    return ":".join((name or "").split(":")[:2])


def _heading(console: Console, title: str) -> None:
    from rich.text import Text

    console.print(Text("\n" + title, "bold"))


def _without_repeats(value: Mapping[str, Any]) -> dict[str, Any]:
    """Objects inside objects as dotted names, one level, so that each has a line of its own."""
    shown: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner and any(isinstance(part, list | Mapping) for part in inner.values()):
            shown.update((f"{name}.{key}", part) for key, part in inner.items())
        else:
            shown[name] = inner
    return shown


def _steps(job: Job, short: str) -> list[str]:
    if not job.is_terminal:
        return [f"milepost watch {short}", f"milepost cancel {short}"]
    steps = [f"milepost logs {short}"]
    if job.status in (JobStatus.FAILED, JobStatus.CANCELLED) and job.driver == "worker":
        steps.insert(0, f"milepost retry {short}")
    return [*steps, f"milepost rm {short}"]
