"""Measure partitions under load: python scripts/limits.py [--scale F] [--store memory|sqlite|redis|postgres] [--record FILE].

It measures whether a partition with 100,000 jobs delays 99 others with 10 each, and checks a limit of 2 for each of 1,000
partitions while workers are killed. `--scale 0.1` takes a tenth of the large numbers. `--record docs/reliability.md` adds a row to its
table, whatever the result. Ends with 1 when a limit was exceeded.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from records import commit, parser_of, publish  # noqa: E402 - the path comes first
from tests.chaos.limited_load import run_small, run_under_kills, store  # noqa: E402

STORES = ["memory", "sqlite", "redis", "postgres"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each store."""
    parser = parser_of(__doc__, STORES)
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args(arguments)
    large, partitions, is_exceeded = int(100_000 * given.scale), int(1000 * given.scale), False
    for kind in given.stores or STORES:
        with store(kind) as url:
            (alone, _), (beside, _) = run_small(url, 0), run_small(url, large)
        exceeded, said, kills = list[str](), "-", "-"
        if kind != "memory":
            with store(kind) as url:
                exceeded, killed = run_under_kills(url, partitions)
            said = f"{partitions:,}: exceeded {len(exceeded)} times" if exceeded else f"{partitions:,}: never exceeded"
            kills = str(killed)
        when = datetime.now(UTC).date().isoformat()
        line = [when, commit(), kind, f"{alone:.1f} s", f"{large:,}: {beside:.1f} s", said, kills]
        publish(line, "limits.py", given.record, exceeded)
        is_exceeded |= bool(exceeded)
    return int(is_exceeded)


if __name__ == "__main__":
    raise SystemExit(main())
