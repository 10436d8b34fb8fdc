"""Add up pytest's reports: scripts/tally.py REPORT.xml... prints "N passed, N failed, N skipped".

An error in a fixture counts as failed. A report that is missing or cut off is said on stderr and makes this fail.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET


def counts(path: str) -> tuple[int, int, int]:
    """Return how many tests of one report passed, failed and were skipped."""
    passed = failed = skipped = 0
    for case in ET.parse(path).iter("testcase"):
        outcomes = {child.tag for child in case}
        if outcomes & {"failure", "error"}:
            failed += 1
        elif "skipped" in outcomes:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main(paths: list[str]) -> int:
    """Print the sum over all reports."""
    total = [0, 0, 0]
    complete = True
    for path in paths:
        try:
            total = [a + b for a, b in zip(total, counts(path), strict=True)]
        except (OSError, ET.ParseError) as error:
            print(f"no complete report: {error}", file=sys.stderr)
            complete = False
    print("{} passed, {} failed, {} skipped".format(*total))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
