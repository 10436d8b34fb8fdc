"""Run the tests that need a night: python scripts/nightly.py [--rounds N] [--loaded N] [--together N] [--only-timing] [--record FILE] [PYTEST ARGUMENT...]

First the tests marked `nightly`. Then those marked `timing` (but not `slow`), N times in random order and N times more with
two busy loops beside them. These tests wait most of their time, so several rounds run side by side. A failed round prints
the seed that repeats its order.
`--record docs/reliability.md` adds a row to its table; after Ctrl-C with the rounds that have ended. Ends with 1 when a test failed.
"""

from __future__ import annotations

import argparse
import platform
import random
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from records import add_row, commit
from summarize_tests import name, outcome

NO_TESTS = 5  # pytest's exit code
BUSY_LOOPS = 2
BUSY = "import os, time\nparent = os.getppid()\nwhile os.getppid() == parent:\n    pass\n"  # ends with this script


@contextmanager
def load(loops: int) -> Iterator[None]:
    """Run that many busy loops in processes."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run(marks: str, arguments: Sequence[str]) -> tuple[Counter[str], list[str]]:
    """Run the tests of these marks; return the number of each outcome and the ids of those that failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", marks, f"--junitxml={report}", *arguments]
        code = subprocess.run(command, check=False).returncode
        cases = list(ET.parse(report).iter("testcase")) if report.exists() else []
    failed = [name(case) for case in cases if outcome(case) == "failed"]
    if code not in (0, 1) and not (code == NO_TESTS and marks == "nightly"):
        failed.append(f"pytest ended with {code}")
    return Counter(map(outcome, cases)), failed


def timing_round(loops: int, arguments: Sequence[str]) -> tuple[Counter[str], list[str]]:
    """Run the timing tests once in random order, and print the outcome."""
    seed = random.SystemRandom().randrange(1_000_000)
    outcomes, failed = run("timing and not slow and not nightly", [f"--randomly-seed={seed}", *arguments])
    print(f"{loops} busy loops, seed {seed}: {dict(outcomes)} {failed}", flush=True)
    return outcomes, failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the requested rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="rounds in random order")
    parser.add_argument("--loaded", type=int, default=5, help="rounds in random order, with two busy loops as load")
    parser.add_argument("--together", type=int, default=4, help="rounds that run side by side")
    parser.add_argument("--only-timing", action="store_true", help="leave out the tests marked `nightly`")
    parser.add_argument("--record", type=Path, metavar="FILE", help="a Markdown file with a table of nightly runs")
    given, rest = parser.parse_known_args(arguments)
    began = time.monotonic()
    long_tests: Counter[str] = Counter()
    failed: list[str] = []
    if not given.only_timing:
        long_tests, failed = run("nightly", rest)
    total: Counter[str] = Counter()
    ended = Counter[int]()
    with suppress(KeyboardInterrupt):
        for rounds, loops in ((given.rounds, 0), (given.loaded, BUSY_LOOPS)):
            with load(loops if rounds else 0), ThreadPoolExecutor(given.together) as pool:
                running = [pool.submit(timing_round, loops, rest) for _ in range(rounds)]
                try:
                    for one in as_completed(running):
                        outcomes, failures = one.result()
                        total += outcomes
                        failed += failures
                        ended[loops] += 1
                except KeyboardInterrupt:
                    pool.shutdown(cancel_futures=True)
                    raise
    for test, times in Counter(failed).most_common():
        print(f"failed {times} times: {test}")
    minutes = (time.monotonic() - began) / 60
    if given.record is not None:
        add_row(given.record, "nightly.py", [
            datetime.now(UTC).date().isoformat(), commit(), platform.python_version(), f"{minutes:.0f} min",
            "not run" if given.only_timing else long_tests["passed"], ended[0], ended[BUSY_LOOPS], f"{total['passed']:,}", len(failed),
        ])  # fmt: skip
    print(f"{total['passed'] + long_tests['passed']} passed, {len(failed)} failed")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
