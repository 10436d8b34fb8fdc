"""The limits of the page of workers: their use, their partitions, and gates that a button opens."""

from __future__ import annotations

import re
from threading import Event

import pytest
from playwright.sync_api import Page, expect

from milepost import Jobs, Run, Snooze
from tests.dashboard.conftest import Opened, Stage, axe, until

pytestmark = pytest.mark.timeout(300)


def test_limits_show_what_runs_and_a_gate_is_opened(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served
    finish = Event()

    @jobs.job
    def embed(run: Run) -> None:
        while not finish.wait(0.02):
            run.check()

    page = opened(f"{address}?page=workers")
    limits = page.get_by_role("region", name="Limits")
    expect(limits).to_contain_text("No limits. Set one with milepost limit set KEY --running 8")
    assert not axe(page)
    jobs.limit("embed", running=4, per_partition=2, rate="6000/min")
    for _ in range(3):
        jobs.submit(embed.options(partition="acme"))
    jobs.submit(embed.options(partition="globex"))
    with jobs.run_workers(concurrency=6):
        try:
            row = limits.get_by_role("rowgroup").filter(has_text="embed")
            for text in ("3 of 4", "6000/min", "at most 2 of each"):
                expect(row).to_contain_text(text)
            expect(row.get_by_role("listitem")).to_have_text(["acme 2 of 2", "globex 1 of 2"])
            jobs.close_gate("embed", "10m")
            closed = row.locator(".chip")
            expect(closed).to_have_text(re.compile(r"gate closed for (10\smin 0|9\smin \d+)\ss"))
            expect(closed).to_have_text(re.compile(r"closed for [5-9]\smin \d+\ss"))  # it counts down
            assert not axe(page)
            jobs.submit(embed.options(partition="initech"))
            expect(row.get_by_role("cell", name="1", exact=True)).to_be_visible()  # it waits for the gate
            row.get_by_role("button", name="Open gate of embed").click()
            expect(closed).to_have_count(0)
            expect(row.get_by_role("listitem")).to_have_text(["acme 2 of 2", "globex 1 of 2", "initech 1 of 2"])
            row.get_by_role("link", name="Pending jobs of embed").click()
            expect(page.locator(".body-row")).to_have_count(1)
            expect(page.locator(".body-row")).to_contain_text("Concurrency limit of 4 reached for embed")
        finally:
            finish.set()


def test_gate_that_a_run_closed_shows_the_time_left(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served

    @jobs.job
    def describe(run: Run) -> None:
        raise Snooze(300, gate="images")

    page = opened(f"{address}?page=workers")
    with jobs.run_workers():
        jobs.submit(describe.options(limit_key="images"))
        row = page.get_by_role("region", name="Limits").get_by_role("rowgroup").filter(has_text="images")
        expect(row.locator(".chip")).to_have_text(re.compile(r"closed for [1-4]\smin \d+\ss"))
        jobs.open_gate("images")  # elsewhere; the key has no limit, so its row is gone
        expect(row).to_have_count(0)


def test_gate_that_cannot_be_opened_says_why(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served
    jobs.close_gate("images", "10m")
    page = opened(f"{address}?page=workers")
    page.context.watch.forgiven += ["status of 503"]  # type: ignore[attr-defined]
    problem = {"detail": "The store is unavailable"}
    page.route("**/api/gates/*", lambda route: route.fulfill(status=503, json=problem), times=1)
    page.reload()  # requests of a page that is already open may pass the route
    button = page.get_by_role("button", name="Open gate of images")
    button.click()
    expect(page.locator(".toast")).to_contain_text("The store is unavailable")
    button.click()
    expect(button).to_have_count(0)


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_long_keys_and_many_partitions_fit(stage: Stage, opened: Opened, theme: str, width: int) -> None:
    page = opened(stage.jobs, theme=theme, width=width)
    idle = {
        "running": 8,
        "per_partition": None,
        "rate": None,
        "gate_until": None,
        "leases": 0,
        "partitions": {},
        "claimable": 0,
    }
    many = {f"tenant-{n:04}-" + "x" * 110: n for n in range(1, 1001)}
    busy = {"key": "k" * 128, "per_partition": 1000, "running": None, "leases": 500_500, "partitions": many}
    closed = {"key": "closed", "rate": "500/min", "gate_until": "2999-01-01T00:00:00.000+00:00"}
    limits = [idle | {"key": f"idle-{n:03}"} for n in range(60)] + [idle | busy, idle | closed]
    page.route("**/api/limits", lambda route: route.fulfill(json={"limits": limits}))
    show_workers(page)
    rows = page.get_by_role("region", name="Limits").get_by_role("rowgroup")
    expect(rows).to_have_count(51)
    expect(rows.nth(1)).to_contain_text("closed for")
    expect(rows.nth(2).get_by_role("listitem")).to_have_count(6)
    expect(rows.nth(2).get_by_role("listitem").first).to_contain_text("tenant-1000-")
    expect(rows.nth(2).get_by_role("listitem").last).to_have_text("and 995 more")
    expect(page.get_by_text("And 12 more with fewer running jobs")).to_be_visible()
    assert not axe(page)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_reader_sees_no_limits(stage: Stage, opened: Opened) -> None:
    page = opened(f"{stage.second}/keyed/jobs/?page=workers")
    page.context.watch.forgiven += ["status of 401", "status of 403"]  # type: ignore[attr-defined]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_label("Key", exact=True).fill(stage.keys["reader"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("Your key doesn't allow this.")
    expect(page.get_by_role("region", name="Limits")).to_have_count(0)
    assert not [url for url in asked if url.endswith("/api/limits")]


def show_workers(page: Page) -> None:
    """Go to the page of workers by its link, as a user does."""
    page.wait_for_selector(".body-row")
    page.keyboard.press("g")
    page.keyboard.press("w")
    until(page, "document.title.startsWith('Workers')")
