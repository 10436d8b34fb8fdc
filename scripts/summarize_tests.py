"""Summarise pytest's reports: scripts/summarize_tests.py REPORT.xml... prints the ten slowest tests and "N passed, N failed, N skipped".

An error in a fixture counts as failed. A report that is missing or cut off is said on stderr and makes this fail.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import Counter

SLOWEST = 10


def outcome(case: ET.Element) -> str:
    """Return the outcome of a test."""
    marks = {child.tag for child in case}
    if marks & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in marks else "passed"


def name(case: ET.Element) -> str:
    """Return the pytest id of a test."""
    module = case.get("file") or case.get("classname", "").replace(".", "/") + ".py"
    return f"{module}::{case.get('name')}"


def main(paths: list[str]) -> int:
    """Print the slowest tests and the totals of all reports."""
    total: Counter[str] = Counter()
    seconds: list[tuple[float, str]] = []
    complete = True
    for path in paths:
        try:
            cases = list(ET.parse(path).iter("testcase"))
        except (OSError, ET.ParseError) as error:
            print(f"incomplete report: {error}", file=sys.stderr)
            complete = False
            continue
        total.update(map(outcome, cases))
        seconds += [(float(case.get("time", 0)), name(case)) for case in cases]
    for took, test in sorted(seconds, reverse=True)[:SLOWEST]:
        print(f"{took:7.1f} s  {test}")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
