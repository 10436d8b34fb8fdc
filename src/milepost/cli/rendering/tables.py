"""Tables of jobs, of rows, and of JSON values; fitted to the terminal, uncut in a pipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from milepost.cli import formatting
from milepost.cli.job_selection import short_ids
from milepost.cli.rendering.live import echo, echo_json
from milepost.cli.rendering.progress import as_of, remaining_range, state_of, style_of
from milepost.cli.rendering.terminal import MUTED, bar, cells, clean, glyph
from milepost.core.activity import progress_text
from milepost.core.job import Job

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from milepost.cli.context import CommandContext


BAR_MIN_WIDTH, AGE_MIN_WIDTH, TOOK_MIN_WIDTH, TITLE_MIN_WIDTH = 64, 100, 120, 140
MAX_TYPE_WIDTH, MAX_TITLE_WIDTH = 16, 24
YIELDING = ("TITLE", "TOOK", "CREATED", "PROGRESS", "LEFT", "%", "TYPE")
"""The columns that a table of jobs leaves out where others are too wide, such as the ids of children."""
MARGIN = "  "
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


class Column(NamedTuple):
    """A column of a table of jobs."""

    name: str
    justify: Literal["left", "right"]
    cells: list[Text]


def columns_of(console: Console, jobs: Sequence[Job], width: int, *, utc: bool) -> list[Column]:
    """Return the columns of a table of jobs that fit a width. Those of YIELDING give way to the activity, first one first."""
    from rich.text import Text

    now = datetime.now(UTC)
    ids = short_ids(jobs)
    bar_width = max(8, min(26, width // 4 - 8))
    shown: list[Column] = []

    def add(name: str, justify: Literal["left", "right"], min_width: int, cell: Callable[[Job], Text]) -> None:
        if width >= min_width:
            shown.append(Column(name, justify, [cell(job) for job in jobs]))

    add("", "left", 0, lambda job: Text(glyph(console, state_of(job)), style_of(job)))
    add("ID", "left", 0, lambda job: Text(ids[job.job_id], MUTED))
    add("TYPE", "left", 0, lambda job: Text(clean(job.job_type)[:MAX_TYPE_WIDTH]))
    add("PROGRESS", "left", BAR_MIN_WIDTH, lambda job: bar(console, job.progress, bar_width, style_of(job)))
    add("%", "right", 0, lambda job: Text(progress_text(job)))
    add("LEFT", "right", BAR_MIN_WIDTH, lambda job: Text(_left(job, now)))
    add("CREATED", "right", AGE_MIN_WIDTH, lambda job: Text(formatting.clock(job.created_at, utc=utc, now=now), MUTED))
    add("TOOK", "right", TOOK_MIN_WIDTH, lambda job: Text(_took(job, now), MUTED))
    add("TITLE", "left", TITLE_MIN_WIDTH, lambda job: Text(_title(job)[:MAX_TITLE_WIDTH]))
    add("ACTIVITY", "left", 0, lambda job: Text(clean(job.activity), MUTED))
    sizes = {column.name: max((cells(column.name), *(cell.cell_len for cell in column.cells))) for column in shown}
    least = min(sizes["ACTIVITY"], MIN_LAST_COLUMN_WIDTH)
    for name in YIELDING:
        if width - sum(sizes[column.name] + 2 for column in shown[:-1]) >= least:
            break
        shown = [column for column in shown if column.name != name]
    return shown


def table(console: Console, jobs: Sequence[Job], *, utc: bool) -> RenderableType:
    """Return the table of jobs, one line each."""
    from rich.table import Table
    from rich.text import Text

    columns = columns_of(console, jobs, console.width, utc=utc)
    grid = Table.grid(padding=(0, 2), pad_edge=False, expand=True)
    for column in columns[:-1]:
        grid.add_column(no_wrap=True, justify=column.justify)
    grid.add_column(no_wrap=True, overflow="ellipsis" if glyph(console, "dot") == "·" else "crop", ratio=1)
    grid.add_row(*(Text(column.name, MUTED) for column in columns))
    for row in zip(*(column.cells for column in columns), strict=True):
        grid.add_row(*row)
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


def _left(job: Job, now: datetime) -> str:
    left = remaining_range(job, now)
    return formatting.short_duration((left[0] + left[1]) / 2) + as_of(job, now) if left is not None else ""


def _took(job: Job, now: datetime) -> str:
    if job.started_at is None:
        return ""
    return formatting.duration(((job.completed_at or now) - job.started_at).total_seconds())


MAX_ROWS = 10
MAX_CELL_WIDTH = 2000
MIN_LAST_COLUMN_WIDTH = 16
"""The width in cells below which the last column is not cut."""


def print_records(
    context: CommandContext,
    records: Iterable[Mapping[str, Any]],
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    nothing: str,
    right: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> None:
    """Print records as JSON lines with --json, else as rows under a heading; without any, print the text `nothing`."""
    if context.json:
        for record in records:
            echo_json(record)
    elif rows:
        print_rows(context, heading, rows, right=right, optional=optional)
    else:
        context.console.print(clean(nothing))


def print_rows(
    context: CommandContext,
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> None:
    """Print rows under a heading. `right` names right-aligned columns; the last column takes the remaining width.

    On a narrow terminal the columns in `optional` are dropped, first one first.
    """
    console = context.console
    if not console.is_terminal:
        for line in aligned([tuple(heading), *(tuple(clean(cell) for cell in row) for row in rows)]):
            echo(line)
        return
    from rich.table import Table
    from rich.text import Text

    shown, sizes = _fitting(heading, rows, optional, console.width)
    available = console.width - sum(sizes[at] + 2 for at in shown[:-1])
    sizes[shown[-1]] = max(1, min(available, sizes[shown[-1]]))
    grid = Table.grid(padding=(0, 2), pad_edge=False)
    for at in shown:
        side: Literal["left", "right"] = "right" if heading[at] in right else "left"
        grid.add_column(no_wrap=True, justify=side, overflow="ellipsis", width=sizes[at])
    grid.add_row(*(Text(heading[at], MUTED) for at in shown))
    for row in rows:
        grid.add_row(*(Text(clean(row[at])) for at in shown))
    console.print(grid)


def _fitting(
    heading: Sequence[str], rows: Sequence[Sequence[str]], optional: Sequence[str], width: int
) -> tuple[list[int], list[int]]:
    """Return the columns that fit, and the width of each column. The last column that fits may be cut."""
    from rich.cells import cell_len

    sizes = [max(cell_len(row[at]) for row in (heading, *rows)) for at in range(len(heading))]
    shown = list(range(len(heading)))
    for name in optional:
        if width - sum(sizes[at] + 2 for at in shown[:-1]) >= min(sizes[shown[-1]], MIN_LAST_COLUMN_WIDTH):
            break
        shown.remove(heading.index(name))
    return shown, sizes


def print_value(console: Console, value: Any) -> None:
    """Print a JSON value: an object as a table with its lists of objects below, other values as text."""
    from rich.table import Table
    from rich.text import Text

    if not isinstance(value, Mapping):
        console.print(Text(MARGIN + value_text(value)))
        return
    below: list[tuple[str, list[Mapping[str, Any]]]] = []
    table = Table.grid(padding=(0, 2), pad_edge=False)
    table.add_column(style=MUTED, no_wrap=True)
    table.add_column(overflow="fold")
    for name, inner in value.items():
        if isinstance(inner, list) and inner and all(isinstance(row, Mapping) for row in inner):
            below.append((str(name), inner))
            table.add_row(Text(MARGIN + _label(name)), Text(formatting.number(len(inner))))
        elif not _is_empty(inner):
            table.add_row(Text(MARGIN + _label(name)), Text(value_text(inner)))
    print_table(console, table)
    for name, rows in below:
        _print_rows(console, name, rows)


def _print_rows(console: Console, name: str, rows: list[Mapping[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    columns = list(dict.fromkeys(key for row in rows[:MAX_ROWS] for key in row))
    table = Table.grid(padding=(0, 2), pad_edge=False)
    for column in columns:
        table.add_column(overflow="fold", ratio=None if column != columns[-1] else 1)
    table.add_row(*(Text((MARGIN if at == 0 else "") + _label(c).upper(), MUTED) for at, c in enumerate(columns)))
    for row in rows[:MAX_ROWS]:
        table.add_row(*(Text((MARGIN if at == 0 else "") + value_text(row.get(c, ""))) for at, c in enumerate(columns)))
    console.print(Text(f"\n{MARGIN}{_label(name)}"))
    print_table(console, table)
    if len(rows) > MAX_ROWS:
        console.print(
            Text(f"{MARGIN}and {formatting.number(len(rows) - MAX_ROWS)} more (use --json to see all)", MUTED)
        )


def print_table(console: Console, table: Table) -> None:
    """Print a table; in a pipe without trailing blanks."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as drawn:
        console.print(table)
    console.file.write("".join(line.rstrip() + "\n" for line in drawn.get().splitlines()))


def value_text(value: Any) -> str:
    """Return a JSON value in one line, with formatted numbers."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return formatting.number(value)
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, str):
        return clean(value, MAX_CELL_WIDTH)
    if isinstance(value, Mapping) and value and all(isinstance(v, int | float | str | None) for v in value.values()):
        return clean(", ".join(f"{name} {value_text(inner)}" for name, inner in value.items()), MAX_CELL_WIDTH)
    return clean(json.dumps(value, ensure_ascii=False, default=str), MAX_CELL_WIDTH)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, list | Mapping | str) and not value)


def _label(name: object) -> str:
    return clean(name, 60).replace("_", " ")
