"""Plain tables: a heading and rows, on a terminal as wide as it is, in a pipe aligned and whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from milepost.cli.drawing.console import MUTED, clean
from milepost.cli.drawing.joblist import aligned
from milepost.cli.drawing.views import say

if TYPE_CHECKING:
    from milepost.cli.session import Session


LAST_LEAST = 16
"""Cells below which the last column is not cut."""


def print_rows(
    session: Session,
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """Print rows below their heading. `right` names the columns of numbers; the last column takes what is left. On a
    terminal that is too narrow the columns of `spare` are left out, the first one first."""
    console = session.console
    if not console.is_terminal:
        for line in aligned([tuple(heading), *(tuple(clean(cell) for cell in row) for row in rows)]):
            say(line)
        return
    from rich.table import Table
    from rich.text import Text

    shown, sizes = _fitting(heading, rows, spare, console.width)
    room = console.width - sum(sizes[at] + 2 for at in shown[:-1])
    sizes[shown[-1]] = max(1, min(room, sizes[shown[-1]]))
    grid = Table.grid(padding=(0, 2), pad_edge=False)
    for at in shown:
        side: Literal["left", "right"] = "right" if heading[at] in right else "left"
        grid.add_column(no_wrap=True, justify=side, overflow="ellipsis", width=sizes[at])
    grid.add_row(*(Text(heading[at], MUTED) for at in shown))
    for row in rows:
        grid.add_row(*(Text(clean(row[at])) for at in shown))
    console.print(grid)


def _fitting(
    heading: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], width: int
) -> tuple[list[int], list[int]]:
    """Which columns there is room for, and the width of each column; the last one of those may be cut."""
    from rich.cells import cell_len

    sizes = [max(cell_len(row[at]) for row in (heading, *rows)) for at in range(len(heading))]
    shown = list(range(len(heading)))
    for name in spare:
        if width - sum(sizes[at] + 2 for at in shown[:-1]) >= min(sizes[shown[-1]], LAST_LEAST):
            break
        shown.remove(heading.index(name))
    return shown, sizes
