"""The terminal: capabilities, colours, glyphs, and text fitted to cells.

Colour only shows status. Without UTF-8 all glyphs are ASCII; with NO_COLOR or in a pipe there is no colour.
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


def make_console() -> Console:
    """Return the console of stdout. Text of jobs is never read as markup."""
    from rich.console import Console

    class Output(Console):
        """A console that raises BrokenPipeError when the reader closes the pipe, where Rich would exit with 1."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, "the reader closed the pipe")

    console = Output(highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console = Output(highlight=False, markup=False, emoji=False, width=10_000, no_color=True)
    return console


def is_live(console: Console) -> bool:
    """Return whether the terminal can redraw lines."""
    return console.is_terminal and not console.is_dumb_terminal and sys.stdout.isatty()


def is_ascii(console: Console) -> bool:
    """Return whether only ASCII can be shown."""
    return not console.encoding.lower().replace("-", "").startswith("utf")


def glyph(console: Console, name: str) -> str:
    """Return the glyph of a status or punctuation mark."""
    return GLYPHS[name][is_ascii(console)]


def clean(text: object, limit: int = 100_000) -> str:
    """Return text of a job without terminal control characters."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text)[:limit])


def cells(text: str) -> int:
    """Return the width of a text in terminal cells; East Asian characters take two."""
    from rich.cells import cell_len

    return cell_len(text)


def pad(text: str, width: int, side: str = "<") -> str:
    """Return a text padded to `width` cells, aligned to the left, or to the right with ``>``."""
    blanks = " " * (width - cells(text))
    return blanks + text if side == ">" else text + blanks


def truncate(console: Console, text: str, width: int) -> str:
    """Return a text cut to at most `width` cells, with an ellipsis if it was longer."""
    from rich.cells import set_cell_size

    if cells(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)) + glyph(console, "ellipsis")


def bar(console: Console, fraction: float, width: int, style: str) -> Text:
    """Return a progress bar of `width` cells in steps of half a cell."""
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
        drawn.append(tip + "━" * (rest - 1), "bright_black")
    if console.no_color or not console.color_system:  # only the characters can distinguish the two parts
        return Text("━" * full + "╸" * half + "·" * rest, no_wrap=True)
    return drawn
