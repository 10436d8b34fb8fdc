"""Adds rows to the tables of test runs in the documentation."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def parser_of(description: str | None, stores: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser with the options of the scripts that run on several stores: on which, and where to add a row for each."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=stores, action="append", dest="stores", help="default: all")
    parser.add_argument("--record", type=Path, metavar="FILE", help="a Markdown file with a table of these runs")
    return parser


def publish(cells: list[object], script: str, file: Path | None, problems: Sequence[str] = ()) -> None:
    """Print a row and some of the problems, and add the row to the table of a script."""
    sys.stdout.write("\n".join([row(cells), *problems[:5]]) + "\n")
    sys.stdout.flush()
    if file is not None:
        add_row(file, script, cells)


def commit() -> str:
    """Return the checked-out commit, with "-dirty" if files differ."""
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def add_row(file: Path, script: str, cells: list[object]) -> None:
    """Add a row to the table that ends with the comment of a script. Exits if the page has none."""
    end = f"<!-- scripts/{script} --record adds its rows above this line -->\n"
    before, found, after = file.read_text(encoding="utf-8").partition(end)
    if not found:
        raise SystemExit(f"{file} has no line: {end}")
    file.write_text(f"{before}{row(cells)}\n{end}{after}", encoding="utf-8")


def row(cells: list[object]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
