"""Plain tables: a heading and rows, on a terminal as wide as it is, in a pipe aligned and whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from milepost.cli.drawing.console import MUTED, clean
from milepost.cli.drawing.joblist import aligned
from milepost.cli.drawing.views import say

if TYPE_CHECKING:
    from milepost.cli.session import Session


def print_rows(session: Session, heading: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> None:
    """Print rows below their heading. `right` names the columns of numbers; the last column takes what is left."""
    console = session.console
    if not console.is_terminal:
        for line in aligned([tuple(heading), *(tuple(clean(cell) for cell in row) for row in rows)]):
            say(line)
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2), pad_edge=False)
    last = len(heading) - 1
    for at, name in enumerate(heading):
        side = "right" if name and name in right.split() else "left"
        grid.add_column(
            no_wrap=True, justify="right" if side == "right" else "left", overflow="ellipsis",
            ratio=1 if at == last else None,
        )  # fmt: skip
    grid.add_row(*(Text(name, MUTED) for name in heading))
    for row in rows:
        grid.add_row(*(Text(clean(cell)) for cell in row))
    console.print(grid)
