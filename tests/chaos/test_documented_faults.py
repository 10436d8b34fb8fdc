"""The tests that docs/reliability.md names exist, and every fault has one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_documented_tests_exist() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "docs" / "reliability.md").read_text())
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]
    assert named
    assert missing == []


def test_every_promise_has_test() -> None:
    promises = (ROOT / "docs" / "reliability.md").read_text().partition("## Promises")[2].partition("\n## ")[0]
    made = re.findall(r"^- \*\*(P\d)\*\*", promises, re.MULTILINE)
    shown = re.findall(r"^\| (P\d) \| `.*::", promises, re.MULTILINE)
    assert made == shown == [f"P{number}" for number in range(1, 10)]


def test_every_documented_fault_has_test() -> None:
    faults = (ROOT / "docs" / "reliability.md").read_text().partition("## Faults")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ", 1) for line in faults.splitlines() if line.startswith("| ")][2:]
    bare = [fault for fault, proof in rows if "::" not in proof and not proof.startswith("soak")]
    assert len(rows) >= 30, "the table is not read"
    assert bare == []
