"""Interrupt runs of 20 steps by kills: python scripts/steps.py [--kills N] [--store sqlite|redis|postgres] [--record FILE].

Without options 1,000 runs are interrupted on each store. `--record docs/reliability.md` adds a row to its table, whatever the result.
Ends with 1 when a step was called too often, or began with a value that was replaced later.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from records import commit, parser_of, publish  # noqa: E402 - the path comes first
from tests.chaos.parent_runs import store  # noqa: E402
from tests.chaos.step_kills import run_under_kills  # noqa: E402

STORES = ["sqlite", "redis", "postgres"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each store."""
    parser = parser_of(__doc__, STORES)
    parser.add_argument("--kills", type=int, default=1000)
    given = parser.parse_args(arguments)
    is_wrong = False
    for kind in given.stores or STORES:
        began = time.monotonic()
        with store(kind) as (url, _), tempfile.TemporaryDirectory() as folder:
            problems, interrupted, repeated, count = run_under_kills(url, Path(folder) / "calls", given.kills)
        when, took = datetime.now(UTC).date().isoformat(), f"{time.monotonic() - began:.0f} s"
        line = [when, commit(), kind, f"{count:,}", f"{interrupted:,}", f"{repeated:,}", took, len(problems)]
        publish(line, "steps.py", given.record, problems)
        is_wrong |= bool(problems)
    return int(is_wrong)


if __name__ == "__main__":
    raise SystemExit(main())
