"""What a browser sends and receives: bytes of the first view, a slow line, and the requests of an open job."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from playwright.sync_api import CDPSession, Page, expect

from tests.dashboard.conftest import Opened
from tests.dashboard.worker_server import WorkerServer

pytestmark = pytest.mark.timeout(300)

JOBS = 220
"""More than a page of the list."""
FIRST_VIEW = 90_000
FIRST_ROW = 76_000
"""Bytes. At 50 kB/s they take about 1.5 seconds."""
SLOW_LINE = {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}


class Wire:
    """The bytes that a page receives, headers included, as Chromium counts them."""

    def __init__(self, page: Page) -> None:
        self.session: CDPSession = page.context.new_cdp_session(page)
        self.session.send("Network.enable")
        self.bytes: dict[str, float] = {}
        self.urls: dict[str, str] = {}
        self.session.on("Network.requestWillBeSent", self._sent)
        self.session.on("Network.dataReceived", self._received)
        self.session.on("Network.loadingFinished", self._finished)

    def _sent(self, event: dict[str, Any]) -> None:
        self.urls[event["requestId"]] = event["request"]["url"]

    def _received(self, event: dict[str, Any]) -> None:
        name = event["requestId"]
        self.bytes[name] = self.bytes.get(name, 0.0) + event["encodedDataLength"]

    def _finished(self, event: dict[str, Any]) -> None:
        self.bytes[event["requestId"]] = event["encodedDataLength"]

    @property
    def by_url(self) -> dict[str, float]:
        """The bytes of each response so far."""
        return {self.urls.get(name, "?"): size for name, size in self.bytes.items()}


@pytest.fixture
def full(server: WorkerServer) -> WorkerServer:
    """A server with more jobs than the list reads at once."""
    total = server.send("GET", "jobs", params={"limit": 1})["total"]
    with httpx.Client() as client:
        for number in range(total, JOBS):
            body = {"job_type": "staged", "params": {"n": number % 7 + 1, "pause": 0.0}}
            client.post(f"{server.url}/api/jobs", json=body).raise_for_status()
    return server


def test_first_view_is_small_on_the_wire(full: WorkerServer, opened: Opened) -> None:
    page = opened("about:blank")
    wire = Wire(page)
    page.goto(full.jobs)
    expect(page.locator(".body-row").first).to_be_visible()
    expect(page.locator(".live")).to_contain_text("Live")
    expect(page.locator(".tabs b").first).to_be_visible()  # the snapshot of the stream has come
    page.wait_for_timeout(1500)
    assert sum(wire.by_url.values()) <= FIRST_VIEW, wire.by_url


@pytest.mark.slow
@pytest.mark.timing
def test_first_row_waits_for_little_on_a_slow_line(full: WorkerServer, opened: Opened) -> None:
    """The row is there before anything that it does not need has used the line."""
    page = opened("about:blank")
    wire = Wire(page)
    wire.session.send("Network.emulateNetworkConditions", SLOW_LINE)
    page.goto(full.jobs, wait_until="commit")
    expect(page.locator(".body-row").first).to_be_visible(timeout=30_000)
    assert sum(wire.by_url.values()) <= FIRST_ROW, wire.by_url
    assert len(wire.urls) <= 14, wire.urls


@pytest.mark.slow
def test_open_running_job_sends_few_requests(server: WorkerServer, opened: Opened) -> None:
    job_id = server.submit("staged", n=4000, pause=0.05)
    page = opened(f"{server.jobs}?job={job_id}")
    expect(page.locator(".pane .chip")).to_have_text("running")
    expect(page.locator(".live")).to_contain_text("Live")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/api/" in request.url else None)
    before, began = page.locator(".pane .says").inner_text(), time.monotonic()
    page.wait_for_timeout(10_000)
    assert len(sent) <= time.monotonic() - began, "more than one a second:\n" + "\n".join(sorted(sent))
    assert page.locator(".pane .says").inner_text() != before
