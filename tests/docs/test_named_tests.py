"""Every test that a page names exists; each promise, fault and API risk has one."""

from __future__ import annotations

import re

from tests.docs.page_runner import ROOT

PAGES = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in sorted((ROOT / "docs").rglob("*.md"))}
RELIABILITY = PAGES["docs/reliability.md"]


def section(page: str, title: str) -> str:
    """Text below a heading of level 2."""
    return page.partition(f"## {title}")[2].partition("\n## ")[0]


def test_tests_named_on_pages_exist() -> None:
    """A row that names a renamed or deleted test proves nothing."""
    named = [(page, *test) for page, text in PAGES.items() for test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)", text)]
    missing = [
        f"{page}: {file}::{name}"
        for page, file, name in named
        if not (ROOT / file).exists()
        or not re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE)
    ]
    assert missing == []
    assert {page for page, *_ in named} >= {"docs/reliability.md", "docs/security.md"}


def test_every_promise_has_test() -> None:
    made = re.findall(r"^- \*\*(P\d)\*\*", section(RELIABILITY, "Promises"), re.MULTILINE)
    shown = re.findall(r"^\| (P\d) \| `.*::", section(RELIABILITY, "Promises"), re.MULTILINE)
    assert made == shown == [f"P{number}" for number in range(1, 10)]


def test_every_documented_fault_has_test() -> None:
    rows = [
        line.strip("| ").split(" | ", 1)
        for line in section(RELIABILITY, "Faults").splitlines()
        if line.startswith("| ")
    ][2:]
    bare = [fault for fault, proof in rows if "::" not in proof and not proof.startswith("soak")]
    assert len(rows) >= 30, "the table is not read"
    assert bare == []


def test_every_api_risk_is_answered() -> None:
    """The ten risks of OWASP's API Security Top 10 have a row each."""
    assert re.findall(r"^\| (API\d+) ", PAGES["docs/security.md"], re.MULTILINE) == [
        f"API{row}" for row in range(1, 11)
    ]
