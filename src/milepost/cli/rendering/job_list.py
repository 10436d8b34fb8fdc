"""Lists of jobs: one line per job with a progress bar on a terminal, aligned columns in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from milepost.cli import formatting
from milepost.cli.job_selection import short_ids
from milepost.cli.rendering.progress import remaining_range, state_of, style_of
from milepost.cli.rendering.terminal import MUTED, STYLES, bar, clean, glyph
from milepost.core.activity import progress_text
from milepost.core.job import Job

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

BAR_MIN_WIDTH, AGE_MIN_WIDTH, TOOK_MIN_WIDTH, TITLE_MIN_WIDTH = 64, 100, 120, 140
MAX_TYPE_WIDTH, MAX_TITLE_WIDTH = 16, 24
PLAIN_HEADING = ("ID", "TYPE", "STATUS", "%", "CREATED", "ACTIVITY")


def list_summary(
    console: Console, shown: int, total: int | None, at_least: int, counts: dict[str, int], *, name: str = "milepost ls"
) -> Text:
    """Return the line above a list: the number of jobs, and counts by status."""
    from rich.text import Text

    of = (
        f"{formatting.number(shown)} of {formatting.plural(total, 'job')}"
        if total is not None and total > shown
        else ""
    )
    if not of:
        of = (
            formatting.plural(shown, "job")
            if total is not None or at_least <= shown
            else f"first {formatting.plural(shown, 'job')}"
        )
    line = Text(f"{name}  ", "bold").append(of, "bold")
    for status in ("running", "pending", "failed", "stalled"):
        if counts.get(status):
            line.append(f" {glyph(console, 'dot')} {formatting.number(counts[status])} {status}", "bold")
    return line


def table(console: Console, jobs: Sequence[Job], *, utc: bool, now: datetime | None = None) -> RenderableType:
    """Return the table of jobs, one line each."""
    from rich.table import Table
    from rich.text import Text

    now = now or datetime.now(UTC)
    width = console.width
    ids = short_ids(jobs)
    bar_width = max(8, min(26, width // 4 - 8))
    wide = width >= BAR_MIN_WIDTH
    columns = [
        ("", "left"),
        ("ID", "left"),
        ("TYPE", "left"),
        *([("PROGRESS", "left")] if wide else []),
        ("%", "right"),
    ]
    if wide:
        columns.append(("LEFT", "right"))
    if width >= AGE_MIN_WIDTH:
        columns.append(("CREATED", "right"))
    if width >= TOOK_MIN_WIDTH:
        columns.append(("TOOK", "right"))
    if width >= TITLE_MIN_WIDTH:
        columns.append(("TITLE", "left"))
    grid = Table.grid(padding=(0, 2), pad_edge=False, expand=True)
    for _, justify in columns:
        grid.add_column(no_wrap=True, justify="right" if justify == "right" else "left")
    grid.add_column(no_wrap=True, overflow="ellipsis" if glyph(console, "dot") == "·" else "crop", ratio=1)
    grid.add_row(*(Text(name, MUTED) for name, _ in columns), Text("ACTIVITY", MUTED))
    for job in jobs:
        state = state_of(job)
        left = remaining_range(job, now)
        cells = [
            Text(glyph(console, state), STYLES[state]),
            Text(ids[job.job_id], MUTED),
            Text(clean(job.job_type)[:MAX_TYPE_WIDTH]),
            *([bar(console, job.progress, bar_width, style_of(job))] if wide else []),
            Text(progress_text(job)),
        ]
        if wide:
            cells.append(Text(formatting.short_duration((left[0] + left[1]) / 2) if left is not None else ""))
        if width >= AGE_MIN_WIDTH:
            cells.append(Text(formatting.clock(job.created_at, utc=utc, now=now), MUTED))
        if width >= TOOK_MIN_WIDTH:
            cells.append(Text(_took(job, now), MUTED))
        if width >= TITLE_MIN_WIDTH:
            cells.append(Text(_title(job)[:MAX_TITLE_WIDTH]))
        grid.add_row(*cells, Text(clean(job.activity), MUTED))
    return grid


def plain_lines(jobs: Sequence[Job], *, utc: bool) -> list[str]:
    """Return the jobs in aligned columns for pipes, with whole ids and messages."""
    rows = [PLAIN_HEADING]
    for job in jobs:
        state = state_of(job)
        when = formatting.timestamp(job.created_at, utc=utc)
        rows.append(
            (
                job.job_id,
                clean(job.job_type),
                state,
                progress_text(job).replace(" ", ""),
                when,
                clean(job.activity),
            )
        )
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines, each column as wide as its widest cell."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows]


def _title(job: Job) -> str:
    from milepost.query.filters import title

    return clean(title(job) or "")


def _took(job: Job, now: datetime) -> str:
    if job.started_at is None:
        return ""
    return formatting.duration(((job.completed_at or now) - job.started_at).total_seconds())
