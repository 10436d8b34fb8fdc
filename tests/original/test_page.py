"""The page about the original design names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_test_that_the_page_names_exists() -> None:
    page = (ROOT / "docs" / "original.md").read_text(encoding="utf-8")
    written = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("original", "web")
        for path in sorted((ROOT / "tests" / folder).glob("test_*.py"))
    )
    named = re.findall(r"`(test_\w+)`", page)
    assert len(named) > 20
    assert [name for name in named if f"def {name}(" not in written] == []
    assert [path for path in re.findall(r"`(tests/[\w/.]+)`", page) if not (ROOT / path).exists()] == []
