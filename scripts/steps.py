"""Interrupt runs of 20 steps by kills: python scripts/steps.py [--kills N] [--store sqlite|redis|postgres] [--record FILE].

Without options 1,000 runs are interrupted on each store. `--record docs/reliability.md` adds a row to its table, whatever the result.
Ends with 1 when a step was called too often, or began with a value that was replaced later.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from records import add_row, commit, row  # noqa: E402 - the path comes first
from tests.chaos.parent_runs import store  # noqa: E402
from tests.chaos.step_kills import run_under_kills  # noqa: E402

STORES = ["sqlite", "redis", "postgres"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--store", choices=STORES, action="append")
    parser.add_argument("--record", type=Path, metavar="FILE", help="a Markdown file with a table of these runs")
    given = parser.parse_args(arguments)
    is_wrong = False
    for kind in given.store or STORES:
        began = time.monotonic()
        with store(kind) as (url, _), tempfile.TemporaryDirectory() as folder:
            problems, interrupted, repeated, count = run_under_kills(url, Path(folder) / "calls", given.kills)
        when, took = datetime.now(UTC).date().isoformat(), f"{time.monotonic() - began:.0f} s"
        line = [when, commit(), kind, f"{count:,}", f"{interrupted:,}", f"{repeated:,}", took, len(problems)]
        sys.stdout.write("\n".join([row(line), *problems[:5]]) + "\n")
        sys.stdout.flush()
        if given.record is not None:
            add_row(given.record, "steps.py", line)
        is_wrong |= bool(problems)
    return int(is_wrong)


if __name__ == "__main__":
    raise SystemExit(main())
