"""`make bench ARGS="W2 --only milepost,huey,arq"`: measure works, interleaved, and print medians and ratios beside the goals."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path

from benchmarks import records
from benchmarks.installing import install
from benchmarks.sampling import Failed, NotInstalled, Sample
from benchmarks.surveys import SURVEYS, Survey
from benchmarks.works import WORKS, Result, Work

PROGRAMS = {"documents": "documents", "dashboard": "dashboard", "eta": "eta.__main__"}
"""What is measured by a program of its own, with its own options."""


def measure(work: Work, peers: list[str], runs: int, failed: list[str], *, tiny: bool) -> Result:
    """The samples of each peer, taken in turn so that a change of the machine's speed hits all alike; `failed` takes who could not."""
    samples: dict[str, list[Sample]] = {peer: [] for peer in peers}
    for _ in range(runs):
        for peer in list(samples):
            try:
                samples[peer].append(work.sample(peer, tiny=tiny))
            except NotInstalled as missing:
                print(f"  {peer}: left out, {missing}", file=sys.stderr)
                del samples[peer]
            except Failed as error:
                print(f"  {peer}: FAILED, {error}", file=sys.stderr)
                del samples[peer]
                failed.append(f"{work.name} by {peer}")
    return Result(work, samples)


def report(result: Result, *, goals: bool) -> None:
    """Print a line for each peer, best first as they are listed, and one for each goal."""
    work = result.work
    for peer in result.samples:
        low, high = result.spread(peer)
        more = "".join(f"   {value:,.1f} {name}" for name, value in result.more(peer).items())
        print(f"  {peer:16} {result.median(peer):>12,.2f} {work.unit:7} ({low:,.2f} to {high:,.2f}){more}")
    for verdict in result.verdicts() if goals else ():
        print(f"  {verdict.text}  {'reached' if verdict.reached else 'NOT REACHED'}")


def survey(asked: Survey, *, tiny: bool, record: bool) -> None:
    """Measure milepost alone and print the table."""
    print(f"\n{asked.name}  {asked.title}", flush=True)
    table = asked.run(tiny=tiny)
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    for line in (table.columns, *table.rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for note in table.notes:
        print(f"  {note}")
    if record:
        records.keep(table)


def main() -> None:
    """Measure works and surveys, or let a program of its own do what it is for."""
    if sys.argv[1:2] and sys.argv[1] in PROGRAMS:
        importlib.import_module(f"benchmarks.{PROGRAMS[sys.argv[1]]}").main(sys.argv[2:])
    else:
        side_by_side()


def side_by_side() -> None:
    """Measure what was asked for and print it; `--json FILE` keeps the figures, `--record` writes docs/benchmarks.md."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    known = [*WORKS, *SURVEYS]
    parser.add_argument(
        "works",
        nargs="*",
        help=f"of {', '.join(known)}; W1 to {list(WORKS)[-1]} when none is named; "
        f"{', '.join(PROGRAMS)} take options of their own",
    )
    parser.add_argument("--only", help="peers, separated by commas")
    parser.add_argument("--runs", type=int, default=3, help="samples of each peer (default 3)")
    parser.add_argument("--tiny", action="store_true", help="a size that only shows that everything still runs")
    parser.add_argument("--no-install", action="store_true", help="leave out peers whose environment is not there")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument(
        "--record", action="store_true", help="write the results into docs/benchmarks.md, with pictures"
    )
    asked = parser.parse_args()
    unknown = [name for name in asked.works if name not in known]
    if unknown:
        parser.error(f"no work {unknown[0]!r}; there are {', '.join(known)}")
    if asked.record and (asked.tiny or asked.only):
        parser.error("--record is for whole works at their full size")
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; Redis on CPU 0, clients on CPU 1"
    )
    failed: list[str] = []
    kept: dict[str, dict[str, list[float]]] = {}
    for name in asked.works or WORKS:
        if name in SURVEYS:
            survey(SURVEYS[name], tiny=asked.tiny, record=asked.record)
            continue
        work = WORKS[name]
        peers = [peer for peer in work.peers if not asked.only or peer in asked.only.split(",")]
        print(f"\n{work.name}  {work.title}", flush=True)
        for peer in peers if not asked.no_install else ():
            install(work.environment(peer))
        result = measure(work, peers, 1 if asked.tiny else asked.runs, failed, tiny=asked.tiny)
        report(result, goals=not asked.tiny)
        kept[name] = {peer: [sample.figure for sample in samples] for peer, samples in result.samples.items()}
        if asked.record:
            records.keep(result)
    if asked.record:
        records.write()
    if asked.json is not None:
        asked.json.write_text(json.dumps(kept, indent=1) + "\n")
    if failed:
        sys.exit(f"benchmarks: {', '.join(failed)} failed")


if __name__ == "__main__":
    main()
