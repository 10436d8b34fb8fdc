"""`milepost-watch.js` in a real browser: it shows a job to its end, also when the server is away for a while."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, sync_playwright

from tests.services import need
from tests.web.server import PATIENCE, Server

WATCH = """async (id) => {
  Object.assign(window, { told: [], ended: [] });
  const { watchJob } = await import("/api/milepost-watch.js");
  watchJob("/api", id, { onChange: (job) => told.push(job.status), onEnd: (job) => ended.push(job.status) });
}"""


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of Chromium."""
    path = need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--headless", "--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        yield page
        browser.close()


def test_an_answer_of_a_server_that_is_away_is_not_the_end_of_a_job(page: Page) -> None:
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
        page.wait_for_function("told.includes('pending')")
        server.drive("update_job", job_id, "running")
        page.wait_for_function("told.includes('running')")
        assert page.evaluate("ended") == []
        server.drive("update_job", job_id, "completed")
        page.wait_for_function("ended.length > 0")
        assert page.evaluate("ended") == ["completed"]
        assert len(refused) == 2


def test_a_job_that_is_not_there_ends_at_once(page: Page) -> None:
    with Server() as server:
        page.goto(server.url + "/healthz")
        page.evaluate(WATCH, "nope")
        page.wait_for_function("ended.length > 0")
