"""The page of schedules: their next ticks, and the buttons that pause, resume and fire them."""

from __future__ import annotations

from playwright.sync_api import expect

from milepost import Jobs, Run
from tests.dashboard.conftest import Opened, axe


def test_schedule_is_shown_and_managed(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served

    @jobs.job
    def reindex(run: Run) -> None: ...

    page = opened(f"{address}?page=schedules")
    expect(page.get_by_text("No schedules. Declare one with")).to_be_visible()
    made = jobs.add_schedule("nightly", reindex, cron="0 3 * * *", tz="Europe/Berlin")
    jobs.add_schedule("hourly", reindex, every="1h")
    row = page.locator("li.panel").filter(has=page.get_by_role("heading", name="nightly"))
    expect(row).to_contain_text("0 3 * * * Europe/Berlin · reindex · 0 fired")
    expect(page.locator("li.panel").filter(has_text="hourly")).to_contain_text("every 1\u00a0h · reindex")
    ticks = row.get_by_role("list", name="Next ticks of nightly").get_by_role("listitem")
    expect(ticks).to_have_count(5)
    for shown, tick in zip(ticks.all(), made.upcoming, strict=True):
        assert f"{tick:%Y-%m-%d %H:%M:%S}" in (shown.get_attribute("title") or "")
    row.get_by_role("button", name="Pause").click()
    expect(row.get_by_role("heading")).to_contain_text("paused")
    expect(ticks).to_have_count(0)
    assert jobs.get_schedule("nightly").paused == "user"
    row.get_by_role("button", name="Resume").click()
    expect(ticks).to_have_count(5)
    row.get_by_role("button", name="Fire now").click()
    expect(page.locator(".toast")).to_contain_text("created")
    [job] = jobs.list_jobs("reindex")
    assert job.schedule == "nightly"
    assert not axe(page)
    row.get_by_role("link", name="nightly").click()
    expect(page.locator(".body-row")).to_have_count(1)
