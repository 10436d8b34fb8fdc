"""The soak on demand: python scripts/soak.py [--jobs N] [--kills N] [--store redis|sqlite] [--seed N]
       [--slowness F] [--record FILE].

Without options it is the large one, 50,000 jobs and 1,000 SIGKILLs on each store; the other faults grow with the jobs.
`--record docs/reliability.md` adds a row to its table of large runs, whatever came of the run.
Ends with 1 when an invariant is violated.
"""

from __future__ import annotations

import argparse
import platform
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.chaos.checker import check  # noqa: E402 - the path comes first
from tests.chaos.soak import Outcome, Soak, Targets, told  # noqa: E402

FULL = Targets(jobs=2000, kills=40, zombies=10, lost=50, restarts=3, commits=6, cancels=200, deletes=100, poison=10)
END_OF_TABLE = "<!-- scripts/soak.py --record adds its rows above this line -->\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=None, help="default: one for each 50 jobs")
    parser.add_argument("--store", choices=["redis", "sqlite"], action="append")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--slowness", type=float, help="what deadlines and leases are multiplied with, instead of measuring it"
    )
    parser.add_argument("--record", type=Path, metavar="FILE", help="a Markdown file with a table of large runs")
    given = parser.parse_args(arguments)
    targets = FULL.times(given.jobs / FULL.jobs)
    targets = replace(targets, jobs=given.jobs, kills=given.kills or max(1, given.jobs // 50))
    found = False
    for kind in given.store or ["sqlite", "redis"]:
        seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1_000_000)
        print(f"{kind}: seed {seed}, {targets}", flush=True)
        outcome = Soak(kind, targets, seed, slowness=given.slowness).run()
        violations = check(outcome.history)
        print(told(outcome, violations), flush=True)
        print(f"violations: {len(violations)}", flush=True)
        print(row(outcome, len(violations)), flush=True)
        if given.record is not None:
            record(given.record, row(outcome, len(violations)))
        found = found or bool(violations)
    return int(found)


def row(outcome: Outcome, violations: int) -> str:
    """The line of a table that says what ran, on what, and what came of it."""
    counts = outcome.counts
    commits = f", and {counts['kills in a commit']:,} in a commit" if counts["kills in a commit"] else ""
    store = f"{counts['Redis SIGKILLs']} SIGKILLs" if counts["Redis SIGKILLs"] else f"lock held {counts['locks held for 3 s']} times"  # fmt: skip
    asked = {
        do: sum(counts[f"{do} {phase}"] for phase in ("done", "refused", "unknown")) for do in ("cancel", "delete")
    }
    cells = [
        datetime.now(UTC).date().isoformat(), commit(), platform.python_version(), outcome.store, outcome.seed,
        f"{outcome.lease:.2f} s", f"{outcome.seconds / 60:.0f} min", f"{len(outcome.history.calls_of):,}", f"{counts['runs']:,}",
        f"{counts['events']:,}", f"{counts['SIGKILLs']:,}{commits}", counts["zombies"], f"{counts['replies lost']:,}", store,
        f"{asked['cancel']:,}", f"{asked['delete']:,}", counts["crash loops"], violations,
    ]  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def commit() -> str:
    """The commit that ran."""
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def record(file: Path, line: str) -> None:
    """Add a row to the table of large runs."""
    before, end, after = file.read_text(encoding="utf-8").partition(END_OF_TABLE)
    if not end:
        raise SystemExit(f"{file} has no line: {END_OF_TABLE}")
    file.write_text(f"{before}{line}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
