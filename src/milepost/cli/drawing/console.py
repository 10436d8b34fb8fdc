"""The terminal that answers go to: its kind, its colours, its characters. Owns what a status looks like; knows no job.

Colour means status and nothing else. Where the terminal's encoding is not UTF-8 every glyph is ASCII; with NO_COLOR, or
in a pipe, there is no colour.
"""

from __future__ import annotations

import errno
import re
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES: Final = {
    "pending": "bright_black",
    "running": "blue",
    "completed": "green",
    "failed": "red",
    "cancelled": "magenta",
    "stalled": "yellow",
}
GLYPHS: Final = {
    "pending": ("◌", "."),
    "running": ("◐", ">"),
    "completed": ("✓", "+"),
    "failed": ("✗", "x"),
    "cancelled": ("⊘", "-"),
    "stalled": ("▲", "!"),
    "dot": ("·", "|"),
    "arrow": ("→", "->"),
    "ellipsis": ("…", "~"),
}
MUTED: Final = "bright_black"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def make_console(*, errors: bool = False) -> Console:
    """The console of stdout, or of stderr. Text of jobs is never taken for markup."""
    from rich.console import Console

    class Output(Console):
        """Rich would end the program with 1 when the reader has gone."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, "the reader has gone")

    console = Output(stderr=errors, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console = Output(stderr=errors, highlight=False, markup=False, emoji=False, width=10_000, no_color=True)
    return console


def is_live(console: Console) -> bool:
    """Whether lines can be drawn over: a real terminal that knows how to."""
    return console.is_terminal and not console.is_dumb_terminal and sys.stdout.isatty()


def is_ascii(console: Console) -> bool:
    """Whether only ASCII can be shown."""
    return not console.encoding.lower().replace("-", "").startswith("utf")


def glyph(console: Console, name: str) -> str:
    """The sign of a status, or a mark of punctuation."""
    return GLYPHS[name][is_ascii(console)]


def clean(text: object, limit: int = 100_000) -> str:
    """Text of a job without what could steer a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text)[:limit])


def cells(text: str) -> int:
    """How many cells of a terminal a text takes: a Chinese character takes two."""
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, width: int, side: str = "<") -> str:
    """A text with blanks, up to that many cells: after it, or before it when its side is the right one, ``>``."""
    blanks = " " * (width - cells(text))
    return blanks + text if side == ">" else text + blanks


def cut(console: Console, text: str, width: int) -> str:
    """A text in at most `width` cells, with a sign where something is left out."""
    from rich.cells import set_cell_size

    if cells(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)) + glyph(console, "ellipsis")


def bar(console: Console, fraction: float, width: int, style: str) -> Text:
    """A bar of that many cells; half a cell is its finest step."""
    from rich.text import Text

    fraction = min(1.0, max(0.0, fraction))
    drawn = Text(no_wrap=True)
    if is_ascii(console):
        full = int(fraction * width)
        return drawn.append("#" * full, style).append("." * (width - full), MUTED)
    halves = int(fraction * width * 2)
    full, half = divmod(halves, 2)
    drawn.append("━" * full + "╸" * half, style)
    rest = width - full - half
    if rest:
        tip = "╺" if full and not half else "━"
        drawn.append(tip + "━" * (rest - 1), "bright_black" if console.color_system else "dim")
    if not console.color_system:  # nothing but the characters tells the two parts apart
        return Text("━" * full + "╸" * half + "·" * rest, no_wrap=True)
    return drawn
