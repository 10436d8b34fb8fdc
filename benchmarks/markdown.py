"""Tables and generated sections of docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def machine() -> str:
    """Return the machine in one sentence."""
    return (
        f"{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}, {datetime.now(UTC):%B %Y}."
    )


def put_section(title: str, text: str, page: Path = PAGE) -> None:
    """Replace the section with that title, or add it at the end."""
    heading = f"## {title}\n"
    before, found, after = page.read_text(encoding="utf-8").partition(heading)
    rest = after[after.index("\n## ") + 1 :] if found and "\n## " in after else ""
    section = f"{heading}\n{text.strip()}\n"
    page.write_text(before.rstrip() + "\n\n" + section + (f"\n{rest}" if rest else ""), encoding="utf-8")
