"""The soak on demand: python scripts/soak.py [--jobs N] [--kills N] [--store redis|sqlite] [--seed N].

Without options it is the large one, 50,000 jobs and 1,000 SIGKILLs on each store; the other faults grow with the jobs.
Ends with 1 when an invariant is violated.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.chaos.checker import check
from tests.chaos.soak import Soak, Targets, told

FULL = Targets(jobs=2000, kills=40, zombies=10, lost=50, restarts=3, commits=6, cancels=200, deletes=100, poison=10)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=None, help="default: one for each 50 jobs")
    parser.add_argument("--store", choices=["redis", "sqlite"], action="append")
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    targets = FULL.times(given.jobs / FULL.jobs)
    targets = replace(targets, jobs=given.jobs, kills=given.kills or max(1, given.jobs // 50))
    found = False
    for kind in given.store or ["sqlite", "redis"]:
        seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1_000_000)
        print(f"{kind}: seed {seed}, {targets}", flush=True)
        outcome = Soak(kind, targets, seed).run()
        violations = check(outcome.history)
        print(told(outcome, violations), flush=True)
        print(f"violations: {len(violations)}", flush=True)
        found = found or bool(violations)
    return int(found)


if __name__ == "__main__":
    raise SystemExit(main())
