#!/usr/bin/env python3
"""Draw docs/lifecycle.svg from the table of legal moves, or with --check report whether it is up to date.

Positions are defined here, moves and names in the table. A move without a route, or a route without a move, is an error.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path
from typing import NamedTuple

from milepost.core.transitions.table import MOVES, NONE, TERMINAL

TARGET = Path(__file__).resolve().parents[1] / "docs" / "lifecycle.svg"
WIDTH, HEIGHT = 960, 600
BOX = (130, 52)

PLACES = {
    NONE: (60, 230),
    "pending": (240, 230),
    "running": (600, 230),
    "completed": (860, 90),
    "failed": (860, 380),
    "cancelled": (420, 480),
}


class Route(NamedTuple):
    """A cubic curve (an SVG path) and the position of its label, centred."""

    path: str
    words: tuple[int, int]


ROUTES: dict[tuple[str, str], Route] = {
    (NONE, "pending"): Route("M 72 230 L 171 230", (121, 219)),
    (NONE, "running"): Route("M 64 218 C 90 96 520 96 586 200", (330, 114)),
    ("pending", "running"): Route("M 305 218 L 531 218", (420, 207)),
    ("running", "pending"): Route("M 535 242 L 309 242", (420, 262)),
    ("pending", "completed"): Route("M 236 204 C 250 20 640 10 791 76", (500, 30)),
    ("running", "completed"): Route("M 640 204 C 680 150 730 110 791 98", (670, 140)),
    ("running", "failed"): Route("M 640 256 C 680 320 730 360 791 374", (672, 334)),
    ("failed", "running"): Route("M 866 354 C 862 270 770 230 669 230", (748, 254)),
    ("pending", "failed"): Route("M 280 256 C 340 410 640 420 791 388", (660, 421)),
    ("failed", "pending"): Route("M 866 406 C 850 600 60 660 196 260", (520, 575)),
    ("pending", "cancelled"): Route("M 236 256 C 236 350 290 430 351 466", (246, 352)),
    ("cancelled", "pending"): Route("M 376 454 C 330 400 270 340 258 260", (338, 386)),
    ("running", "cancelled"): Route("M 596 256 C 590 350 540 440 489 470", (610, 340)),
    ("cancelled", "running"): Route("M 444 454 C 470 390 550 330 572 260", (490, 358)),
}

STYLE = """
    text { font: 14px system-ui, sans-serif; fill: #1f2430; text-anchor: middle }
    .words { font-size: 12.5px; fill: #4a5160; paint-order: stroke; stroke: #fff; stroke-width: 4px }
    .state { fill: #f2f5fb; stroke: #3d5a98; stroke-width: 1.5 }
    .ended { fill: #fff; stroke-width: 3 }
    .move { fill: none; stroke: #6b7486; stroke-width: 1.4; marker-end: url(#tip) }
    .dot, .tip { fill: #6b7486 }
    .page { fill: #fff }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6e9f0 }
      .words { fill: #b6bdcb; stroke: #14171f }
      .state { fill: #1d2433; stroke: #86a3e0 }
      .ended { fill: #14171f }
      .move { stroke: #8b94a6 }
      .dot, .tip { fill: #8b94a6 }
      .page { fill: #14171f }
    }
"""


def draw() -> str:
    """Return the picture as SVG. Raises ValueError if moves and routes differ."""
    if set(MOVES) != set(ROUTES):
        raise ValueError(f"moves and routes differ: {sorted(set(MOVES) ^ set(ROUTES))}")
    moves = "; ".join(f"{source or 'none'} to {target}: {words}" for (source, target), words in MOVES.items())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t d">',
        "  <!-- made by scripts/lifecycle_diagram.py; edit the table or the script, not this file -->",
        '  <title id="t">The life of a job</title>',
        f'  <desc id="d">{escape(moves)}</desc>',
        f"  <style>{STYLE}  </style>",
        '  <defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="tip" d="M 0 0 L 10 5 L 0 10 z"/></marker></defs>',
        f'  <rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        *(f'  <path class="move" d="{ROUTES[move].path}"/>' for move in MOVES),
        *(_state(name, *place) for name, place in PLACES.items()),
        *(_words(words, *ROUTES[move].words) for move, words in MOVES.items()),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _state(name: str, x: int, y: int) -> str:
    if name == NONE:
        return f'  <circle class="dot" cx="{x}" cy="{y}" r="9"/>'
    width, height = BOX
    look = "state ended" if name in TERMINAL else "state"
    return (
        f'  <rect class="{look}" x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}" rx="10"/>\n'
        f'  <text x="{x}" y="{y + 5}">{name}</text>'
    )


def _words(words: str, x: int, y: int) -> str:
    return f'  <text class="words" x="{x}" y="{y}">{escape(words)}</text>'


def main(arguments: list[str]) -> int:
    """Write the picture, or with --check compare it."""
    picture = draw()
    if "--check" in arguments:
        fresh = TARGET.exists() and TARGET.read_text() == picture
        print(f"{TARGET} is {'up to date' if fresh else 'out of date: run this script'}")
        return 0 if fresh else 1
    TARGET.write_text(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
