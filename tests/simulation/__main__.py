"""Runs seeds, and shows one: ``python -m tests.simulation --help``. `make simulate` runs the next ones."""

from __future__ import annotations

import argparse
import functools
import json
import logging
import multiprocessing
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.simulation.known_bugs import BUGS
from tests.simulation.shrinking import Shrinker
from tests.simulation.simulation import Outcome, run_seed

STATE = Path(".simulation.json")
"""Which seeds have run, by policy, so that the next run continues after them."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", type=int, nargs="?", default=1000, help="number of seeds to run (default: 1000)")
    parser.add_argument("--first", type=int, help="first seed (default: the one after the last run)")
    parser.add_argument("--seed", type=int, help="run one seed and print its trace")
    parser.add_argument("--policy", choices=("pct", "random"), default="pct", help="how faults are chosen")
    parser.add_argument("--bug", choices=tuple(BUGS), help="put back a bug that milepost had")
    parser.add_argument("--processes", type=int, default=1, help="number of processes that run seeds (default: 1)")
    parser.add_argument("--lines", type=int, default=80, help="number of lines of a trace to print")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.seed is not None:
        outcome = run_seed(options.seed, policy=options.policy, bug=options.bug, keeps_trace=True)
        print("\n".join((outcome.trace or [])[-options.lines :]))
        print(f"seed {outcome.seed}: {outcome.violation or 'no violation'}, digest {outcome.digest}")
        return int(outcome.violation is not None)
    return run_many(options)


def run_many(options: argparse.Namespace) -> int:
    """Run seeds until a violation, and show it with as few deviations as possible."""
    state = json.loads(STATE.read_text()) if STATE.exists() else {}
    first = options.first if options.first is not None else state.get(options.policy, 0) + 1
    began, steps, simulated = time.monotonic(), 0, 0.0
    for outcome in outcomes(range(first, first + options.seeds), options):
        steps, simulated = steps + outcome.steps, simulated + outcome.simulated
        if outcome.violation is not None:
            show(outcome, options)
            return 1
        if options.bug is None and options.first is None:
            STATE.write_text(json.dumps({**state, options.policy: outcome.seed}))
    seconds = time.monotonic() - began
    print(
        f"seeds {first} to {first + options.seeds - 1} ({options.policy}): no violation, in {seconds:.0f} s "
        f"({options.seeds / seconds:.1f} seeds/s, {simulated / seconds:.0f} simulated s per s, {steps / seconds:.0f} steps/s)"
    )
    return 0


def outcomes(seeds: range, options: argparse.Namespace) -> Iterator[Outcome]:
    """Run seeds, and yield their outcomes in order."""
    run = functools.partial(run_seed, policy=options.policy, bug=options.bug)
    if options.processes == 1:
        yield from map(run, seeds)
        return
    # A process is replaced after 400 seeds: FastAPI keeps functions of earlier applications, which keep their runs.
    with multiprocessing.Pool(options.processes, maxtasksperchild=50) as pool:
        yield from pool.imap(run, seeds, chunksize=8)


def show(failed: Outcome, options: argparse.Namespace) -> None:
    """Print a violation: its seed, the deviations that are left when it is shrunk, and their trace."""
    print(f"seed {failed.seed} ({options.policy}): {failed.violation}", file=sys.stderr)
    shrinker = Shrinker(failed, policy=options.policy, bug=options.bug)
    deviations = shrinker.shrink()
    outcome = run_seed(failed.seed, policy=options.policy, replay=deviations, bug=options.bug, keeps_trace=True)
    print("\n".join((outcome.trace or [])[-options.lines :]))
    print(
        f"{len(failed.deviations)} deviations, {len(deviations)} after {shrinker.runs} runs: {json.dumps(deviations)}"
    )


if __name__ == "__main__":
    sys.exit(main())
