"""`make bench ARGS="W1 --only milepost,rq"`: measure works, interleaved, and print medians and ratios beside the goals."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.environment import private_redis
from benchmarks.works import WORKS, Goal, Work

ROOT = Path(__file__).resolve().parent.parent


def interpreter(peer: str) -> str:
    """The Python of a peer: its own environment when it has one (see benchmarks/peers), else this one."""
    own = ROOT / ".bench" / peer / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def sample(work: Work, peer: str, size: int) -> float | None:
    """One figure of a peer, in a process and on a Redis of its own; None when the peer is not installed."""
    with private_redis() if work.redis else _nothing() as port:
        command = [interpreter(peer), "-m", "benchmarks.sample", work.name, peer, str(port or 0), str(size)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MILEPOST_")}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    if "ModuleNotFoundError" in done.stderr:
        print(f"  {peer}: left out, {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    if done.returncode:
        sys.exit(f"benchmarks: {work.name} by {peer} failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1])["figure"])


class _nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def measure(work: Work, peers: list[str], runs: int, size: int) -> dict[str, list[float]]:
    """The figures of each peer, measured in turn so that a change of the machine's speed hits all alike."""
    figures: dict[str, list[float]] = {peer: [] for peer in peers}
    for _ in range(runs):
        for peer in list(figures):
            figure = sample(work, peer, size)
            if figure is None:
                del figures[peer]
            else:
                figures[peer].append(figure)
    return figures


def verdict(goal: Goal, medians: dict[str, float]) -> str | None:
    """A line that says whether a ratio was reached; None when one of its sides was not measured."""
    if goal.of not in medians or goal.to not in medians:
        return None
    ratio = medians[goal.of] / medians[goal.to]
    reached = ratio <= goal.bound if goal.at_most else ratio >= goal.bound
    side = "at most" if goal.at_most else "at least"
    return f"  {goal.of} / {goal.to}: {ratio:.2f}  ({side} {goal.bound})  {'reached' if reached else 'NOT REACHED'}"


def main() -> None:
    """Measure what was asked for and print it; `--json FILE` keeps the figures."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("works", nargs="*", help=f"of {', '.join(WORKS)}; all when none is named")
    parser.add_argument("--only", help="peers, separated by commas")
    parser.add_argument("--runs", type=int, default=3, help="samples of each peer (default 3)")
    parser.add_argument("--tiny", action="store_true", help="a size that only shows that everything still runs")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    asked = parser.parse_args()
    unknown = [name for name in asked.works if name not in WORKS]
    if unknown:
        parser.error(f"no work {unknown[0]!r}; there are {', '.join(WORKS)}")
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; Redis on CPU 0, clients on CPU 1"
    )
    kept: dict[str, dict[str, list[float]]] = {}
    for name in asked.works or WORKS:
        work = WORKS[name]
        peers = [peer for peer in work.peers if not asked.only or peer in asked.only.split(",")]
        print(f"\n{work.name}  {work.title}", flush=True)
        figures = measure(work, peers, 1 if asked.tiny else asked.runs, work.tiny if asked.tiny else work.size)
        medians = {peer: statistics.median(values) for peer, values in figures.items()}
        for peer, values in figures.items():
            print(f"  {peer:16} {medians[peer]:>12,.2f} {work.unit:7} ({min(values):,.2f} to {max(values):,.2f})")
        for goal in work.goals:
            line = verdict(goal, medians)
            if line is not None and not asked.tiny:
                print(line)
        kept[name] = figures
    if asked.json is not None:
        asked.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
