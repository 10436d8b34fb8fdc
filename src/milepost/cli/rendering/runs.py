"""The runs of a job in `milepost show`: where each one ran, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from milepost.cli import formatting
from milepost.cli.rendering.terminal import MUTED, clean
from milepost.core.activity import LOOP_STAGE, counted, left_open, open_stage
from milepost.core.codecs import decode_dataclass
from milepost.core.events import STATUS_KINDS, Event
from milepost.core.job import Job, JobStatus, Stage
from milepost.core.values import Attempt

if TYPE_CHECKING:
    from rich.table import Table

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
        cells = [f"  {run.attempt}", start, shown_worker(run.worker)]
        if has_release:
            cells.append(run.release or "")
        history = "; ".join(part for part in (_resumed(run, events), _end(run, end, utc) or open_run) if part)
        grid.add_row(*map(Text, cells), Text(clean(history)))
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
