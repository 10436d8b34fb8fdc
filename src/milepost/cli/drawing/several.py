"""Several running jobs one above the other: a line with a bar each, in columns. Owns which column is left out where the
terminal is narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from milepost.cli.drawing.console import bar, cells, cut, padded
from milepost.cli.drawing.running import BAR_LEAST, BAR_MOST, JobLines, style_of
from milepost.core.job import Job

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

GAP: Final = 2


class Row(NamedTuple):
    """What is said of one job beside its bar; what is unknown is empty."""

    percent: str
    counted: str
    rate: str
    left: str


FULL: Final = ("percent", "counted", "rate", "left")
NARROWER: Final = (("percent", "counted", "left"), ("percent", "left"), ("percent",))
SIDES: Final = {"percent": ">", "counted": ">", "rate": ">", "left": "<"}


def bars(console: Console, jobs: Sequence[tuple[str, Job, JobLines]], width: int) -> list[Text]:
    """A line for each job under its label, at most `width` cells wide."""
    from rich.text import Text

    labels = [label for label, _, _ in jobs]
    label_width = min(max(map(cells, labels), default=0), max(12, width // 3))
    rows = [Row(*lines.parts(job)[1:]) for _, job, lines in jobs]
    for columns in (FULL, *NARROWER):
        sizes = {name: max((cells(getattr(row, name)) for row in rows), default=0) for name in columns}
        room = width - label_width - GAP - sum(size + GAP for size in sizes.values() if size)
        if room >= BAR_LEAST:
            break
    drawn: list[Text] = []
    for (label, job, _), row in zip(jobs, rows, strict=True):
        line = Text(padded(cut(console, label, label_width), label_width + GAP), no_wrap=True, overflow="crop")
        line.append_text(bar(console, job.progress, max(4, min(BAR_MOST, room)), style_of(job)))
        for name, size in sizes.items():
            if size:
                line.append(" " * GAP + padded(getattr(row, name), size, SIDES[name]))
        line.rstrip()
        drawn.append(line)
    return drawn
