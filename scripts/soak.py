"""Run the soak test: python scripts/soak.py [--jobs N] [--kills N] [--store redis|sqlite|postgres] [--seed N]
       [--slowness F] [--record FILE].

Without options it is the large one, 50,000 jobs and 1,000 SIGKILLs on each store; the other faults grow with the jobs.
`--record docs/reliability.md` adds a row to its table of large runs, whatever came of the run.
Ends with 1 when an invariant is violated.
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from records import add_row, commit, row  # noqa: E402 - the path comes first
from tests.chaos.checker import check  # noqa: E402
from tests.chaos.soak import Outcome, Soak, Targets, summary  # noqa: E402

FULL = Targets(jobs=2000, kills=40, zombies=10, lost=50, restarts=3, commits=6, cancels=200, deletes=100, poison=10)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=None, help="number of kills (default: one per 50 jobs)")
    parser.add_argument("--store", choices=["redis", "sqlite", "postgres"], action="append")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--slowness", type=float, help="factor for deadlines and leases (default: measured)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="a Markdown file with a table of large runs")
    given = parser.parse_args(arguments)
    targets = FULL.times(given.jobs / FULL.jobs)
    targets = replace(targets, jobs=given.jobs, kills=given.kills or max(1, given.jobs // 50))
    found = False
    for kind in given.store or ["sqlite", "redis", "postgres"]:
        seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1_000_000)
        print(f"{kind}: seed {seed}, {targets}", flush=True)
        outcome = Soak(kind, targets, seed, slowness=given.slowness).run()
        violations = check(outcome.history)
        print(summary(outcome, violations), flush=True)
        print(f"violations: {len(violations)}", flush=True)
        print(row(cells(outcome, len(violations))), flush=True)
        if given.record is not None:
            add_row(given.record, "soak.py", cells(outcome, len(violations)))
        found = found or bool(violations)
    return int(found)


def cells(outcome: Outcome, violations: int) -> list[object]:
    """Return the cells of a row: commit, machine and outcome."""
    counts = outcome.counts
    commits = f", and {counts['kills in a commit']:,} in a commit" if counts["kills in a commit"] else ""
    store = f"{counts['crashes of the server']} crashes" if counts["crashes of the server"] else f"lock held {counts['locks held for 3 s']} times"  # fmt: skip
    asked = {
        do: sum(counts[f"{do} {phase}"] for phase in ("done", "refused", "unknown")) for do in ("cancel", "delete")
    }
    return [
        datetime.now(UTC).date().isoformat(), commit(), platform.python_version(), outcome.store, outcome.seed,
        f"{outcome.lease:.2f} s", f"{outcome.seconds / 60:.0f} min", f"{len(outcome.history.calls_of):,}", f"{counts['runs']:,}",
        f"{counts['events']:,}", f"{counts['SIGKILLs']:,}{commits}", counts["zombies"], f"{counts['replies lost']:,}", store,
        f"{asked['cancel']:,}", f"{asked['delete']:,}", counts["crash loops"], violations,
    ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
