"""Run parents with many children under kills: python scripts/parents.py [--runs N] [--children M] [--store redis|postgres|sqlite]
       [--together N] [--record FILE].

One of two workers is killed every two seconds, and with it the server of the store, if it has one. Each parent must resume exactly
once for each of its suspensions and lost runs, and complete with the results of all children. Without options it runs 100 parents
of 500 children and 20 of 10,000 on each store. Most of the time they wait for leases, so `--together` runs several side by side, each
on a store of its own. `--record docs/reliability.md` adds a row to its table, whatever the result. Ctrl-C or SIGTERM starts no further
parent; the row then tells of those that have ended. Ends with 1 when something was wrong.
"""

from __future__ import annotations

import itertools
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from records import commit, parser_of, publish  # noqa: E402
from tests.chaos.parent_runs import ParentRun, run_parent, store  # noqa: E402

KINDS = ("redis", "postgres", "sqlite")


def measure(kind: str, numbers: Iterator[int], children: int, found: list[ParentRun]) -> None:
    """Run parents one after the other on an own store. Print how each ended, and add it to `found`."""
    with store(kind) as (url, restart_server):
        for number in numbers:
            ended = run_parent(url, f"parents{number}", children, restart_server)
            found.append(ended)
            sys.stdout.write(f"{kind}, parent {number + 1}: {ended}\n")
            sys.stdout.flush()


def cells(kind: str, children: int, found: Sequence[ParentRun]) -> list[object]:
    """Return the row of the runs on a store."""
    when, machine = datetime.now(UTC).date().isoformat(), f"{os.cpu_count()} CPUs, Python {platform.python_version()}"
    right = sum(not one.problems for one in found)
    kills, lost = sum(one.kills for one in found), sum(one.lost for one in found)
    seconds = [one.seconds for one in found]
    return [
        when, commit(), machine, kind, f"{children:,}", f"{right} of {len(found)}", f"{kills:,}", f"{lost:,}",
        f"{sum(seconds) / len(seconds):.0f} / {max(seconds):.0f} s",
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parents on each store."""
    parser = parser_of(__doc__, KINDS)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--children", type=int)
    parser.add_argument("--together", type=int, default=1, help="parents at the same time")
    given = parser.parse_args(arguments)
    sizes = [(100, 500), (20, 10_000)]
    if given.runs or given.children:
        sizes = [(given.runs or 20, given.children or 500)]
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    is_wrong = False
    for kind in given.stores or KINDS:
        for runs, children in sizes:
            found: list[ParentRun] = []
            numbers = itertools.takewhile(lambda _: not stopped.is_set(), range(runs))
            with ThreadPoolExecutor(given.together) as pool:
                runners = [pool.submit(measure, kind, numbers, children, found) for _ in range(given.together)]
            if found:
                is_wrong |= any(one.problems for one in found)
                publish(cells(kind, children, found), "parents.py", given.record)
            for runner in runners:
                runner.result()
    return int(is_wrong)


if __name__ == "__main__":
    raise SystemExit(main())
