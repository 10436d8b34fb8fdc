"""The page of usage: bars by day and by type or label; and the column of the list."""

from __future__ import annotations

from playwright.sync_api import expect

from milepost import Jobs, Run
from tests.dashboard.conftest import Opened, axe


def spend(jobs: Jobs, tenant: str | None, **amounts: float) -> str:
    """Track a job that spends something, and return its id."""
    with jobs.manager.track("chat", labels={} if tenant is None else {"tenant": tenant}) as run:
        run.add_usage(**amounts)
    return run.job_id


def test_usage_is_summed_by_type_and_by_label(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served
    page = opened(f"{address}?page=usage")
    expect(page.get_by_text("No usage in these days.")).to_be_visible()
    assert not axe(page)
    spend(jobs, "acme", tokens=812, usd=0.0041)
    spend(jobs, "zoo & co", tokens=2_000_000, usd=0.001)
    spend(jobs, None, tokens=188)
    page.reload()
    tokens, usd = page.get_by_role("region", name="tokens"), page.get_by_role("region", name="usd")
    expect(tokens.get_by_role("listitem")).to_have_text(["chat2M"])
    expect(tokens.locator(".big")).to_have_attribute("title", "2,001,000")
    expect(tokens.get_by_role("img")).to_have_accessible_name("By day, in UTC: at most 2,001,000, on " + page_day(jobs))
    page.locator("select").select_option("label:tenant")
    expect(tokens.get_by_role("listitem")).to_have_text(["zoo & co2M", "acme812", "without tenant188"])
    expect(usd.get_by_role("listitem")).to_have_text(["acme0.0041", "zoo & co0.001"])
    assert not axe(page)
    page.reload()  # the address keeps the choice
    tokens.get_by_role("link", name="zoo & co").click()
    expect(page.locator(".body-row")).to_have_count(1)
    expect(page.locator(".body-row .usage > div")).to_have_text(["2M tokens", "0.001 usd"])


def test_page_of_a_job_shows_its_budget_with_what_its_children_spent(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served

    @jobs.job
    def part(run: Run) -> None:
        run.add_usage(usd=0.75)

    @jobs.job
    def whole(run: Run) -> None:
        run.submit_child("part", part)
        run.join()
        run.add_usage(usd=0.5, tokens=9)

    with jobs.run_workers():
        made = jobs.submit(whole.options(budget={"usd": 5, "tokens": 1000}, on_budget="ask"))
        free = jobs.submit(part)
        jobs.wait(made, 30)
        jobs.wait(free, 30)
    page = opened(f"{address}?page=job&job={made.job_id}")
    budget = page.get_by_role("region", name="Budget", exact=True)
    expect(budget).to_contain_text("1.25 of 5 usd spent, 0.75 of it by its descendants")
    expect(budget).to_contain_text("9 of 1,000 tokens spent")
    assert not axe(page)
    later = jobs.submit(part.options(delay="1h", budget={"usd": 2}))
    page.goto(f"{address}?page=job&job={later.job_id}")
    expect(budget).to_have_text("Budget 0 of 2 usd spentOnce it is spent, the job fails")
    with page.expect_response(lambda answer: answer.url.endswith("/usage")):
        page.goto(f"{address}?page=job&job={free.job_id}")
    expect(page.get_by_title("Usage")).to_have_text("usd 0.75")
    expect(budget).to_have_count(0)


def page_day(jobs: Jobs) -> str:
    """Return the day of the newest usage, in UTC."""
    return jobs.usage(by="day").until.isoformat()


def test_list_has_a_column_of_usage_only_if_a_job_has_any(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served

    @jobs.job
    def plain(run: Run) -> None:
        """Spend nothing."""

    with jobs.run_workers():
        jobs.wait(jobs.submit(plain))
        page = opened(address)
        expect(page.locator(".body-row")).to_have_count(1)
        expect(page.get_by_role("columnheader", name="Usage")).to_have_count(0)
        spend(jobs, "acme", tokens=812)
        expect(page.get_by_role("columnheader", name="Usage")).to_be_visible()
        expect(page.locator(".usage > div")).to_have_text("812 tokens")
        assert not axe(page)
        page.locator("#filter").fill("type:plain")
        expect(page.get_by_role("columnheader", name="Usage")).to_have_count(0)
