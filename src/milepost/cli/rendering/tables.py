"""Tables of rows, and JSON values of jobs as tables; fitted to the terminal, uncut in a pipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from milepost.cli import formatting
from milepost.cli.rendering.job_list import aligned
from milepost.cli.rendering.live import echo, echo_json
from milepost.cli.rendering.terminal import MUTED, clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from milepost.cli.context import CommandContext


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


def print_value(console: Console, value: Any, *, indent: int = 2) -> None:
    """Print a JSON value: an object as a table with its lists of objects below, other values as text."""
    from rich.table import Table
    from rich.text import Text

    if not isinstance(value, Mapping):
        console.print(Text(" " * indent + value_text(value)))
        return
    below: list[tuple[str, list[Mapping[str, Any]]]] = []
    table = Table.grid(padding=(0, 2), pad_edge=False)
    table.add_column(style=MUTED, no_wrap=True)
    table.add_column(overflow="fold")
    for name, inner in value.items():
        if isinstance(inner, list) and inner and all(isinstance(row, Mapping) for row in inner):
            below.append((str(name), inner))
            table.add_row(Text(" " * indent + _label(name)), Text(formatting.number(len(inner))))
        elif not _is_empty(inner):
            table.add_row(Text(" " * indent + _label(name)), Text(value_text(inner)))
    print_table(console, table)
    for name, rows in below:
        _print_rows(console, name, rows, indent)


def _print_rows(console: Console, name: str, rows: list[Mapping[str, Any]], indent: int) -> None:
    from rich.table import Table
    from rich.text import Text

    columns = list(dict.fromkeys(key for row in rows[:MAX_ROWS] for key in row))
    table = Table.grid(padding=(0, 2), pad_edge=False)
    for column in columns:
        table.add_column(overflow="fold", ratio=None if column != columns[-1] else 1)
    table.add_row(*(Text((" " * indent if at == 0 else "") + _label(c).upper(), MUTED) for at, c in enumerate(columns)))
    for row in rows[:MAX_ROWS]:
        table.add_row(
            *(Text((" " * indent if at == 0 else "") + value_text(row.get(c, ""))) for at, c in enumerate(columns))
        )
    console.print(Text(f"\n{' ' * indent}{_label(name)}"))
    print_table(console, table)
    if len(rows) > MAX_ROWS:
        console.print(
            Text(f"{' ' * indent}and {formatting.number(len(rows) - MAX_ROWS)} more (use --json to see all)", MUTED)
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
