"""What the pages say while the store does not respond, and that they continue by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.conftest import Opened, until
from tests.dashboard.worker_server import WorkerServer, row
from tests.redis_server import RedisServer

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.timing,
]

WITHIN = 30_000
"""Milliseconds in which a page must notice that the store is gone, and that it is back, also on a busy machine: less than
the 35 s of silence after which it takes any stream for dead."""
PLACES = ("?tab=failed", "?page=overview", "?page=types", "?page=failures", "?page=workers")
CLAIMS = re.compile(r"(?<![\d:,.])0(?![\d:,.])|\b(No|None)\b|100%")
"""A number or a word that says that there is none of something."""


class Outage:
    """A Redis that is frozen or killed, and comes back with its data."""

    def __init__(self, redis: RedisServer, how: str) -> None:
        self.redis, self.how = redis, how

    def begin(self) -> None:
        """Take the store away."""
        if self.how == "frozen":
            self.redis.pause()
        else:
            self.redis.kill()

    def end(self) -> None:
        """Bring it back."""
        if self.how == "frozen":
            self.redis.resume()
        else:
            self.redis.start()


@pytest.fixture(params=["frozen", pytest.param("killed", marks=pytest.mark.slow)])
def outage(request: pytest.FixtureRequest) -> Iterator[Outage]:
    with RedisServer(appendonly="always") as redis:
        yield Outage(redis, request.param)
        if request.param == "frozen":
            redis.resume()


def forgive(page: Page) -> None:
    page.context.watch.forgiven += ["Failed to load resource", "ERR_"]  # type: ignore[attr-defined]


def test_every_page_names_the_unreachable_store_and_recovers(outage: Outage, opened: Opened) -> None:
    server = WorkerServer(outage.redis.url)
    try:
        job_id = server.submit("loop", n=4000)
        known = opened(server.jobs)
        forgive(known)
        pill = known.locator(".live")
        expect(row(known, job_id)).to_be_visible()
        expect(pill).to_contain_text("Live")
        outage.begin()
        expect(pill).to_contain_text("Redis unreachable", timeout=WITHIN)
        expect(row(known, job_id)).to_be_visible()  # dimmed, not blanked
        others = [opened(server.jobs + place) for place in (*PLACES, f"?page=job&job={job_id}")]
        for page in others:
            forgive(page)
            expect(page.locator(".live")).to_contain_text("Redis unreachable", timeout=WITHIN)
        known.keyboard.press("5")  # another filter: rows of the last one are no answer to it
        expect(known.locator(".list")).to_contain_text("The job store is unavailable")
        expect(known.locator(".body-row")).to_have_count(0)
        for page in others:  # they have read nothing
            text = page.locator("main").inner_text()
            assert CLAIMS.search(text) is None, (page.url, text)
        known.keyboard.press("1")
        outage.end()
        for page in (known, *others):
            expect(page.locator(".live")).to_contain_text("Live", timeout=WITHIN)
        expect(row(known, server.submit("loop", n=4000))).to_be_visible()
        expect(others[1].locator(".tile").first).to_contain_text(re.compile(r"Running\d"))
        expect(others[-1].locator(".chip")).to_have_text("running")
    finally:
        server.close()


def test_a_killed_server_with_sqlite_is_noticed_and_followed_again(opened: Opened, tmp_path: Path) -> None:
    """SQLite has no server of its own: what can be killed is the process that shows it."""
    server = WorkerServer(f"sqlite:///{tmp_path}/jobs.db")
    try:
        job_id = server.submit("broken")
        page = opened(server.jobs)
        forgive(page)
        expect(row(page, job_id)).to_be_visible()
        expect(page.locator(".live")).to_contain_text("Live")
        server.close()
        expect(page.locator(".live")).not_to_contain_text("Live", timeout=WITHIN)
        expect(page.locator(".live")).to_contain_text(re.compile("Reconnecting|Offline since"))
        page.keyboard.press("2")
        expect(page.locator(".list")).to_contain_text("The server cannot be reached")
        assert CLAIMS.search(page.locator("main .list").inner_text()) is None
        page.keyboard.press("1")
        server = WorkerServer(server.store, server.port)
        expect(page.locator(".live")).to_contain_text(
            "Live"
        )  # the pauses between attempts grow while the server starts
        expect(row(page, job_id)).to_be_visible()
        until(page, "document.querySelector('.jobs.offline') === null")
    finally:
        server.close()
