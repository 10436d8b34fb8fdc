"""Lists of jobs: one line each with its bar, as wide as the terminal; aligned plain columns in a pipe.

Owns which column appears at which width.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from milepost.cli import wording
from milepost.cli.drawing.console import MUTED, STYLES, bar, clean, glyph
from milepost.cli.drawing.running import style_of
from milepost.cli.naming import short_ids
from milepost.cli.pace import leaf, left_of, start_of
from milepost.core.job import Job, JobStatus

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

BAR_FROM, AGE_FROM, TOOK_FROM, TITLE_FROM = 64, 100, 120, 140
TYPE_MOST, TITLE_MOST = 16, 24
PLAIN = ("ID", "TYPE", "STATUS", "%", "CREATED", "MESSAGE")


def summary(
    console: Console, shown: int, total: int | None, at_least: int, counts: dict[str, int], *, name: str = "milepost ls"
) -> Text:
    """The line above a list: how many are shown of how many, and what is going on."""
    from rich.text import Text

    of = f"{wording.number(shown)} of {wording.plural(total, 'job')}" if total is not None and total > shown else ""
    if not of:
        of = wording.plural(shown, "job") if total is not None or at_least <= shown else f"{shown} of more jobs"
    line = Text(f"{name}  ", "bold").append(of, "bold")
    for status in ("running", "pending", "failed", "stalled"):
        if counts.get(status):
            line.append(f" {glyph(console, 'dot')} {wording.number(counts[status])} {status}", "bold")
    return line


def table(console: Console, jobs: Sequence[Job], *, utc: bool, now: datetime | None = None) -> RenderableType:
    """The jobs, one line each."""
    from rich.table import Table
    from rich.text import Text

    now = now or datetime.now(UTC)
    width = console.width
    ids = short_ids(jobs)
    bar_width = max(8, min(26, width // 4 - 8))
    wide = width >= BAR_FROM
    columns = [
        ("", "left"),
        ("ID", "left"),
        ("TYPE", "left"),
        *([("PROGRESS", "left")] if wide else []),
        ("%", "right"),
    ]
    if wide:
        columns.append(("LEFT", "right"))
    if width >= AGE_FROM:
        columns.append(("CREATED", "right"))
    if width >= TOOK_FROM:
        columns.append(("TOOK", "right"))
    if width >= TITLE_FROM:
        columns.append(("TITLE", "left"))
    grid = Table.grid(padding=(0, 2), pad_edge=False, expand=True)
    for _, justify in columns:
        grid.add_column(no_wrap=True, justify="right" if justify == "right" else "left")
    grid.add_column(no_wrap=True, overflow="ellipsis" if glyph(console, "dot") == "·" else "crop", ratio=1)
    grid.add_row(*(Text(name, MUTED) for name, _ in columns), Text("MESSAGE", MUTED))
    for job in jobs:
        state = "stalled" if job.stalled and not job.is_terminal else job.status.value
        left = left_of(job, now)
        cells = [
            Text(glyph(console, state), STYLES[state]),
            Text(ids[job.job_id], MUTED),
            Text(clean(job.job_type)[:TYPE_MOST]),
            *([bar(console, job.progress, bar_width, style_of(job))] if wide else []),
            Text(wording.percent(job.progress)),
        ]
        if wide:
            cells.append(Text(wording.briefly((left[0] + left[1]) / 2) if left is not None else ""))
        if width >= AGE_FROM:
            cells.append(Text(wording.clock(job.created_at, utc=utc, now=now), MUTED))
        if width >= TOOK_FROM:
            cells.append(Text(_took(job, now), MUTED))
        if width >= TITLE_FROM:
            cells.append(Text(_title(job)[:TITLE_MOST]))
        grid.add_row(*cells, Text(saying(console, job), MUTED))
    return grid


def plain_lines(jobs: Sequence[Job], *, utc: bool) -> list[str]:
    """Aligned columns for pipes: whole ids, the status as a word, whole messages."""
    rows = [PLAIN]
    for job in jobs:
        state = "stalled" if job.stalled and not job.is_terminal else job.status.value
        when = wording.stamp(job.created_at, utc=utc)
        rows.append(
            (
                job.job_id,
                clean(job.job_type),
                state,
                wording.percent(job.progress).replace(" ", ""),
                when,
                clean(job.error or job.message),
            )
        )
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text as lines, each column as wide as its widest cell."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows]


def saying(console: Console, job: Job) -> str:
    """What a job says of itself, in one line."""
    if job.status is JobStatus.FAILED and job.error:
        return clean(job.error)
    if job.stalled and not job.is_terminal:
        return clean(job.stalled)
    if job.receipt is not None and job.receipt.confirmed is None:
        return "stopping..."
    if job.waiting_for:
        return f"waits for {clean(job.waiting_for)} to stop"
    if (start := start_of(job)) is not None:
        return f"starts {wording.start_in(start)}"
    stage = leaf(job.stages)
    counted = wording.units(stage.done, stage.total, stage.unit) if stage is not None and stage.total else ""
    if job.status is JobStatus.RUNNING and counted and stage is not None:
        old = any(job.message.startswith(before.name) for before in job.stages if before.ended_at is not None)
        told = old or job.message in ("", "Job created") or job.message.startswith(stage.name)
        message = clean(job.message) if not told else ""
        parts = dict.fromkeys(part for part in (stage.name, counted, message) if part)
        return f" {glyph(console, 'dot')} ".join(parts)
    if job.status is JobStatus.COMPLETED and job.message == "Job created":
        return ""
    return clean(job.message)


def _title(job: Job) -> str:
    from milepost.stores.filters import title

    return clean(title(job) or "")


def _took(job: Job, now: datetime) -> str:
    if job.started_at is None:
        return ""
    return wording.duration(((job.completed_at or now) - job.started_at).total_seconds())
