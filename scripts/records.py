"""Adds rows to the tables of test runs in the documentation."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


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
