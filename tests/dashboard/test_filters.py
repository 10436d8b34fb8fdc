"""Numbers and pages obey the filter in the field, or the field is empty."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import expect

from tests.dashboard.conftest import Opened
from tests.dashboard.worker_server import WorkerServer

pytestmark = pytest.mark.timeout(300)


def finished(server: WorkerServer, job_type: str, count: int, **params: object) -> None:
    """Run some jobs of a type to their end."""
    ids = [server.submit(job_type, **params) for _ in range(count)]
    while any(server.job(job_id)["completed_at"] is None for job_id in ids):
        time.sleep(0.02)


def test_tab_counts_obey_the_filter(server: WorkerServer, opened: Opened) -> None:
    finished(server, "broken", 2)
    finished(server, "staged", 1, n=1, pause=0.0)
    counted = server.send("GET", "stats", params={"q": "type:broken"})["counts"]["broken"]
    page = opened(f"{server.jobs}?q=type:broken")
    tabs = page.locator(".tabs")
    expect(tabs.get_by_role("link", name=re.compile("^All"))).to_have_text(f"All {sum(counted.values())}")
    expect(tabs.get_by_role("link", name="Failed")).to_have_text(f"Failed {counted['failed']}")
    expect(tabs.get_by_role("link", name="Completed")).to_have_text("Completed 0")
    expect(page.locator(".foot span").first).to_have_text(f"{sum(counted.values())} jobs")
    expect(page.locator("#filter")).to_have_value("type:broken")
    for name in ("Failures", "Overview", "Types", "Workers"):
        page.locator(".top > .where").get_by_role("link", name=name).click()
        expect(page.locator("h1")).to_have_text(name)
        expect(page.locator("#filter")).to_have_value("")
    page.locator(".top > .where").get_by_role("link", name="Jobs").click()
    expect(page.locator("#filter")).to_have_value("type:broken")


def test_bar_of_the_hour_opens_the_jobs_that_it_counts(server: WorkerServer, opened: Opened) -> None:
    finished(server, "broken", 1)
    finished(server, "staged", 3, n=1, pause=0.0)
    jobs = server.send("GET", "jobs", params={"q": "status:completed,failed", "limit": 1000})["total"]
    counted = {"completed": 0, "failed": 0}
    while sum(counted.values()) < jobs:  # the server shares its statistics for a moment
        steps = server.send("GET", "stats", params={"window": "1h", "step": "1m"})["steps"]
        counted = {status: sum(step[status] for step in steps) for status in counted}
        time.sleep(0.05)
    page = opened(server.jobs)
    bars = page.get_by_role("toolbar", name="Finished per minute").get_by_role("button")
    bar = bars.and_(page.locator("[aria-label]:not([aria-label*=' 0 completed, 0 failed'])")).last
    expect(bar).to_be_visible()
    completed, failed = map(int, re.findall(r"(\d+) (?:completed|failed)", bar.get_attribute("aria-label") or ""))
    assert completed + failed > 0
    bar.click()
    expect(page.locator("#filter")).to_have_value(re.compile(r"^status:completed,failed ended:\S+\.\.\S+$"))
    query = page.locator("#filter").input_value()
    listed = [job["status"] for job in server.send("GET", "jobs", params={"q": query, "limit": 1000})["jobs"]]
    assert (listed.count("completed"), listed.count("failed")) == (completed, failed)
    expect(page.locator(".tabs").get_by_role("link", name="Failed")).to_have_text(f"Failed {failed}")
    foot = re.fullmatch(r"(at least )?(\d+) jobs?", page.locator(".foot span").first.inner_text())
    assert foot is not None
    count = int(foot[2])
    assert count <= len(listed) if foot[1] else count == len(listed)
