"""`make bench ARGS="dashboard"`: measure the dashboard in Chromium with 10,000 jobs at 50 updates per second.

The play and the browser are those of the tests, which only guard against hanging. `--record` writes docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import sys
from dataclasses import dataclass

from playwright.sync_api import Page, sync_playwright
from tests.dashboard.conftest import FLAGS, STATIC, Stage, everything_read, until, work
from tests.services import need

from benchmarks.markdown import machine, put_section, table

TITLE = "Dashboard"
OBSERVE = """() => {
    window.longest = 0
    new PerformanceObserver(list => { for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration) })
        .observe({type: 'longtask'})
}"""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
SERVER_MOVES = "parseInt(document.querySelector('.live .rate')?.textContent ?? '0')"


@dataclass(frozen=True)
class Figure:
    """One measurement with its limit."""

    name: str
    value: float
    limit: float | None
    unit: str

    @property
    def reached(self) -> str:
        """Return whether the limit holds, as text; empty without a limit."""
        return "" if self.limit is None else "yes" if self.value <= self.limit else "no"


def sizes() -> list[Figure]:
    """Return the sizes of the built files."""
    files = [path for path in STATIC.rglob("*") if path.is_file() and not path.name.startswith(".")]
    first = [path for path in files if path.name == "index.html" or path.name.startswith(("index-", "icon-"))]
    compressed = sum(len(gzip.compress(path.read_bytes())) for path in first)
    return [
        Figure("Jobs page with all that it loads, compressed", compressed / 1000, 90, "kB"),
        Figure("all files, raw", sum(path.stat().st_size for path in files) / 1000, 250, "kB"),
    ]


def opening(page: Page, stage: Stage) -> tuple[float, float]:
    """Return the milliseconds from navigation to first paint and to first rows."""
    page.goto(stage.jobs, wait_until="commit")
    page.wait_for_selector(".body-row")
    rows = float(page.evaluate("performance.now()"))
    until(page, f"{PAINTED} !== undefined")
    return float(page.evaluate(PAINTED)), rows


def living(page: Page, seconds: float) -> tuple[float, float, float]:
    """Return the main thread's share, its longest task in ms (0 below 50) and updates per second, with all jobs listed."""
    everything_read(page)
    page.evaluate(OBSERVE)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    page.wait_for_timeout(1000)
    page.evaluate("window.longest = 0")
    worked, began = work(session)
    rates = []
    for _ in range(int(seconds)):
        page.wait_for_timeout(1000)
        rates.append(float(page.evaluate(SERVER_MOVES)))
    more, ended = work(session)
    return (more - worked) / (ended - began), float(page.evaluate("window.longest")), statistics.median(rates)


def measure(*, tiny: bool) -> list[Figure]:
    """Return all measurements; load times are the median of five."""
    stage = Stage(past=200 if tiny else 10_000, running=10 if tiny else 60)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=need("chromium"), args=FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(stage.jobs)
            until(page, f"{SERVER_MOVES} > 0")
            share, longest, rate = living(page, 2 if tiny else 10)
            page.close()
            opened = [opening(browser.new_page(), stage) for _ in range(5)]
            browser.close()
    finally:
        stage.close()
    return [
        Figure("main thread, 10,000 jobs in the list", 100 * share, 25, "%"),
        Figure("longest task of it (0: none took 50 ms)", longest, 100, "ms"),
        Figure("updates a second that the page received", rate, None, "/s"),
        Figure("first paint after the begin of a load", statistics.median(paint for paint, _ in opened), None, "ms"),
        Figure("first rows after the begin of a load", statistics.median(rows for _, rows in opened), None, "ms"),
        *sizes(),
    ]


def main(arguments: list[str]) -> None:
    """Measure and print; `--record` writes the results."""
    parser = argparse.ArgumentParser(prog='make bench ARGS="dashboard ..."', description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="use tiny sizes, only to check that everything runs")
    parser.add_argument("--record", action="store_true", help="write the results to docs/benchmarks.md")
    asked = parser.parse_args(arguments)
    figures = measure(tiny=asked.tiny)
    for one in figures:
        limit = (
            ""
            if one.limit is None
            else f"  (at most {one.limit:g})  {'reached' if one.reached == 'yes' else 'NOT REACHED'}"
        )
        print(f"  {one.name:48} {one.value:>8.1f} {one.unit}{limit}")
    if asked.record and not asked.tiny:
        rows = [
            (
                one.name,
                f"{one.value:.1f} {one.unit}",
                "" if one.limit is None else f"{one.limit:g} {one.unit}",
                one.reached,
            )
            for one in figures
        ]
        put_section(
            TITLE,
            f'`make bench ARGS="dashboard --record"`: Chromium without a screen, the server on the same machine. {machine()}\n\n'
            + table(["what", "measured", "at most", "reached"], rows),
        )


if __name__ == "__main__":
    main(sys.argv[1:])
