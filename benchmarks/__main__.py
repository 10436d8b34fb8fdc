"""`make bench ARGS="drain --only milepost,huey,arq"`: measure workloads, interleaved, and print medians and ratios with the goals."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path

from benchmarks import results
from benchmarks.install import install
from benchmarks.sampler import NotInstalledError, PeerFailedError, Sample
from benchmarks.surveys import SURVEYS, Survey
from benchmarks.workloads import WORKLOADS, Result, Workload

PROGRAMS = {
    "documents": "documents",
    "document_search": "document_search",
    "dashboard": "dashboard",
    "eta": "eta.__main__",
}
"""Benchmarks that are separate programs with their own options."""


def measure(work: Workload, peers: list[str], runs: int, failed: list[str], *, tiny: bool) -> Result:
    """Return the samples of each peer, taken in turns so that speed changes affect all alike. `failed` gets failed peers."""
    samples: dict[str, list[Sample]] = {peer: [] for peer in peers}
    for _ in range(runs):
        for peer in list(samples):
            try:
                samples[peer].append(work.sample(peer, tiny=tiny))
            except NotInstalledError as missing:
                print(f"  {peer}: skipped, {missing}", file=sys.stderr)
                del samples[peer]
            except PeerFailedError as error:
                print(f"  {peer}: FAILED, {error}", file=sys.stderr)
                del samples[peer]
                failed.append(f"{work.name} by {peer}")
    return Result(work, samples)


def report(result: Result, *, goals: bool) -> None:
    """Print a line for each peer and each goal."""
    work = result.work
    for peer in result.samples:
        low, high = result.spread(peer)
        more = "".join(f"   {value:,.1f} {name}" for name, value in result.more(peer).items())
        print(f"  {peer:16} {result.median(peer):>12,.2f} {work.unit:7} ({low:,.2f} to {high:,.2f}){more}")
    for verdict in result.verdicts() if goals else ():
        print(f"  {verdict.text}  {'reached' if verdict.reached else 'NOT REACHED'}")


def survey(asked: Survey, stores: list[str], *, tiny: bool, record: bool) -> None:
    """Run a survey of milepost alone and print its table."""
    print(f"\n{asked.name}  {asked.title}", flush=True)
    table = asked.run(tiny=tiny, stores=stores)
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    for line in (table.columns, *table.rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for note in table.notes:
        print(f"  {note}")
    if record:
        results.keep(table)


def main() -> None:
    """Measure workloads and surveys, or run a separate program."""
    if sys.argv[1:2] and sys.argv[1] in PROGRAMS:
        importlib.import_module(f"benchmarks.{PROGRAMS[sys.argv[1]]}").main(sys.argv[2:])
    else:
        side_by_side()


def side_by_side() -> None:
    """Measure and print; `--json FILE` saves the samples, `--record` writes docs/benchmarks.md."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    known = [*WORKLOADS, *SURVEYS]
    parser.add_argument(
        "workloads",
        nargs="*",
        help=f"of {', '.join(known)}; lifecycle to {list(WORKLOADS)[-1]} when none is named; "
        f"{', '.join(PROGRAMS)} take options of their own",
    )
    parser.add_argument("--only", help="measure only these peers, separated by commas")
    stores = sorted({store for one in SURVEYS.values() for store in one.stores})
    parser.add_argument(
        "--stores",
        default="",
        help=f"measure these stores, of {','.join(stores)}, in surveys that have several (default Redis)",
    )
    parser.add_argument("--runs", type=int, default=3, help="samples per peer (default 3)")
    parser.add_argument("--tiny", action="store_true", help="use tiny sizes, only to check that everything runs")
    parser.add_argument("--no-install", action="store_true", help="skip peers whose environment is missing")
    parser.add_argument("--json", type=Path, help="write the samples to this file")
    parser.add_argument("--record", action="store_true", help="write the results to docs/benchmarks.md, with charts")
    asked = parser.parse_args()
    unknown = [name for name in asked.workloads if name not in known]
    if unknown:
        parser.error(f"no work {unknown[0]!r}; there are {', '.join(known)}")
    chosen = [store for store in asked.stores.split(",") if store]
    if unknown := [store for store in chosen if store not in stores]:
        parser.error(f"no store {unknown[0]!r}; there are {', '.join(stores)}")
    for name in asked.workloads:
        offered = SURVEYS[name].stores if name in SURVEYS else ()
        if chosen and offered and not {*chosen} & {*offered}:
            parser.error(f"{name} is not measured on {asked.stores}; choose from {', '.join(offered)}")
    if asked.record and (asked.tiny or asked.only):
        parser.error("--record is for whole works at their full size")
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; Redis on CPU 0, clients on CPU 1"
    )
    failed: list[str] = []
    kept: dict[str, dict[str, list[float]]] = {}
    for name in asked.workloads or WORKLOADS:
        if name in SURVEYS:
            survey(SURVEYS[name], chosen, tiny=asked.tiny, record=asked.record)
            continue
        work = WORKLOADS[name]
        peers = [peer for peer in work.peers if not asked.only or peer in asked.only.split(",")]
        print(f"\n{work.name}  {work.title}", flush=True)
        for peer in peers if not asked.no_install else ():
            install(work.environment(peer))
        result = measure(work, peers, 1 if asked.tiny else asked.runs, failed, tiny=asked.tiny)
        report(result, goals=not asked.tiny)
        kept[name] = {peer: [sample.figure for sample in samples] for peer, samples in result.samples.items()}
        if asked.record:
            results.keep(result)
    if asked.record:
        results.write()
    if asked.json is not None:
        asked.json.write_text(json.dumps(kept, indent=1) + "\n")
    if failed:
        sys.exit(f"benchmarks: {', '.join(failed)} failed")


if __name__ == "__main__":
    main()
