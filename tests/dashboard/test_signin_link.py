"""The dashboard of a server that requires keys, opened with the link that the server has printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from milepost.stores.sync_bridge import run_sync
from tests.dashboard.conftest import Opened, Stage
from tests.security.live_server import LiveServer


@pytest.mark.timing
def test_sign_in_link_opens_the_dashboard_once(stage: Stage, opened: Opened, tmp_path: Path) -> None:
    """With required keys the user at the keyboard had no way into the dashboard without creating a key first."""
    with LiveServer(f"sqlite:///{tmp_path / 'jobs.db'}", "milepost", "--auth", "keys") as server:
        server.manager.create_job("one", metadata={"title": "report.pdf"})
        link = f"{server.url}/jobs/?tab=pending#signin={server.link}"
        page = opened(link)
        expect(page.locator(".body-row")).to_contain_text("report.pdf")
        assert page.url == f"{server.url}/jobs/?tab=pending"
        page.locator(".body-row").click()
        page.get_by_role("button", name="Cancel job").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel job").click()
        expect(page.locator(".pane .chip")).to_have_text("cancelled")
        other = opened(link)
        other.context.watch.forgiven += ["status of 401"]  # type: ignore[attr-defined]
        expect(other.get_by_role("alert")).to_contain_text("used already")
        expect(other.get_by_label("Key", exact=True)).to_be_visible()
        for opener in (page, other):  # before the server ends, whose refusals the pages would report
            opener.close()


def test_link_with_a_key_is_refused(stage: Stage, opened: Opened, tmp_path: Path) -> None:
    """The visitor of such a link would submit jobs under the key of the one who made it."""
    with LiveServer(f"sqlite:///{tmp_path / 'jobs.db'}", "milepost", "--auth", "keys") as server:
        _, key = run_sync(server.keys.create("other", ["jobs:read"]))
        page = opened(f"{server.url}/jobs/#signin={key}")
        page.context.watch.forgiven += ["status of 401"]  # type: ignore[attr-defined]
        expect(page.get_by_role("alert")).to_contain_text("not a sign-in link")
        expect(page.get_by_label("Key", exact=True)).to_be_visible()
        assert not page.context.cookies()
        assert key not in page.url
        page.close()
