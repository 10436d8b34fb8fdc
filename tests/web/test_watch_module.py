"""`milepost-watch.js` in a real browser: it shows a job until its end, also across a server outage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, sync_playwright

import milepost.web
from milepost import JobManager
from milepost.testing.conformance.transition_matrix import PLANS
from tests.services import need
from tests.web.server import PATIENCE, Server

WATCH = """async (id) => {
  Object.assign(window, { states: [], ended: [], events: [], last: null });
  const { watchJob } = await import("/api/milepost-watch.js");
  watchJob("/api", id, { onChange: (job) => { states.push(job.status); last = job; },
    onEvent: (event) => events.push([event.kind, event.version]), onEnd: (job) => ended.push(job.status) });
}"""


@pytest.fixture
def page() -> Iterator[Page]:
    """Open a page in Chromium."""
    path = need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--headless", "--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        yield page
        browser.close()


def test_module_listens_to_each_kind_of_event() -> None:
    """A page showed a suspended job as running: an EventSource gives only the kinds of events that it listens to."""
    changes = [plan("operation", "1:token") for plan in PLANS.values()]
    kinds = {branch.event for change in changes for branch in change.transition.branches if branch.event}
    text = (Path(milepost.web.__file__).parent / "milepost-watch.js").read_text()
    named = re.search(r"const kinds = \[(.*?)\]", text, re.DOTALL)
    assert named is not None
    assert set(re.findall(r'"(\w+)"', named[1])) == kinds | {"snapshot", "skipped"}


def test_server_outage_is_not_the_end_of_a_job(page: Page) -> None:
    with Server() as server:
        job_id = server.drive("create_job")["job_id"]
        refused: list[str] = []

        def away(route: Route) -> None:
            if len(refused) < 2:
                refused.append(route.request.url)
                route.fulfill(status=503, body="{}")
            else:
                route.continue_()

        page.route("**/events*", away)
        page.goto(server.url + "/healthz")
        page.evaluate(WATCH, job_id)
        page.wait_for_function("states.includes('pending')")
        server.drive("update_job", job_id, "running")
        page.wait_for_function("states.includes('running')")
        assert page.evaluate("ended") == []
        server.drive("update_job", job_id, "completed")
        page.wait_for_function("ended.length > 0")
        assert page.evaluate("ended") == ["completed"]
        assert len(refused) == 2


def test_missing_job_ends_at_once(page: Page) -> None:
    with Server() as server:
        page.goto(server.url + "/healthz")
        page.evaluate(WATCH, "nope")
        page.wait_for_function("ended.length > 0")
        assert page.evaluate("last.error") == "Job not found"


@pytest.mark.timing
def test_recreated_id_is_shown_as_new_job(page: Page, sqlite_url: str) -> None:
    """A page that reconnected after its job was deleted and recreated added the new events to the old job."""
    stay = JobManager(sqlite_url)
    with Server(sqlite_url) as server:
        stay.create_job("a")
        stay.update_job("a", status="running", progress=0.9, message="old")
        page.goto(server.url + "/healthz")
        page.evaluate(WATCH, "a")
        page.wait_for_function("states.includes('running')")
        server.end()
        stay.delete_job("a")
        stay.create_job("a")
        stay.update_job("a", status="running")
        stay.update_job("a", progress=0.1)
        server.start()
        page.wait_for_function("events.length > 1")
        assert page.evaluate("events") == [["snapshot", 2], ["snapshot", 3]]
        assert page.evaluate("last.progress") == 0.1
        assert page.evaluate("last.message") != "old"
        stay.update_job("a", status="completed")
        page.wait_for_function("ended.length > 0")
        assert page.evaluate("events.slice(2)") == [["completed", 4]]
    stay.close()
