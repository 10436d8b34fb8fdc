"""Values that jobs hold, as tables and plain lines: results, metadata, parameters. Owns how JSON is laid out for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from milepost.cli import wording
from milepost.cli.drawing.console import MUTED, clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ROWS = 10
WIDE = 2000


def print_value(console: Console, value: Any, *, indent: int = 2) -> None:
    """Print a JSON value: an object as a table of names and values, lists of objects below it, anything else as text."""
    from rich.table import Table
    from rich.text import Text

    if not isinstance(value, Mapping):
        console.print(Text(" " * indent + text_of(value)))
        return
    below: list[tuple[str, list[Mapping[str, Any]]]] = []
    table = Table.grid(padding=(0, 2), pad_edge=False)
    table.add_column(style=MUTED, no_wrap=True)
    table.add_column(overflow="fold")
    for name, inner in value.items():
        if isinstance(inner, list) and inner and all(isinstance(row, Mapping) for row in inner):
            below.append((str(name), inner))
            table.add_row(Text(" " * indent + _label(name)), Text(wording.number(len(inner))))
        elif not _is_empty(inner):
            table.add_row(Text(" " * indent + _label(name)), Text(text_of(inner)))
    print_table(console, table)
    for name, rows in below:
        _print_rows(console, name, rows, indent)


def _print_rows(console: Console, name: str, rows: list[Mapping[str, Any]], indent: int) -> None:
    from rich.table import Table
    from rich.text import Text

    columns = list(dict.fromkeys(key for row in rows[:ROWS] for key in row))
    table = Table.grid(padding=(0, 2), pad_edge=False)
    for column in columns:
        table.add_column(overflow="fold", ratio=None if column != columns[-1] else 1)
    table.add_row(*(Text((" " * indent if at == 0 else "") + _label(c).upper(), MUTED) for at, c in enumerate(columns)))
    for row in rows[:ROWS]:
        table.add_row(
            *(Text((" " * indent if at == 0 else "") + text_of(row.get(c, ""))) for at, c in enumerate(columns))
        )
    console.print(Text(f"\n{' ' * indent}{_label(name)}"))
    print_table(console, table)
    if len(rows) > ROWS:
        console.print(Text(f"{' ' * indent}and {wording.number(len(rows) - ROWS)} more (--json has all)", MUTED))


def print_table(console: Console, table: Table) -> None:
    """Print a table; in a pipe without the blanks that fill up its lines."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as drawn:
        console.print(table)
    console.file.write("".join(line.rstrip() + "\n" for line in drawn.get().splitlines()))


def text_of(value: Any) -> str:
    """A JSON value in one line, numbers as people write them."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return wording.number(value)
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, str):
        return clean(value, WIDE)
    if isinstance(value, Mapping) and value and all(isinstance(v, int | float | str | None) for v in value.values()):
        return clean(", ".join(f"{name} {text_of(inner)}" for name, inner in value.items()), WIDE)
    return clean(json.dumps(value, ensure_ascii=False, default=str), WIDE)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, list | Mapping | str) and not value)


def _label(name: object) -> str:
    return clean(name, 60).replace("_", " ")
