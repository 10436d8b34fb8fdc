"""What can be done to jobs: choosing many, undoing, filters and the address."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.conftest import Opened, Stage, eventually, expect_toast, remember_toasts, until
from tests.dashboard.keyboard import confirmed, cursor, enter, to_filter

pytestmark = pytest.mark.timeout(300)


def hold_undo(page: Page) -> None:
    """Let the six seconds in which an action can be undone end at `let_go`, however busy the machine is."""
    page.evaluate(
        """() => {
            const real = window.setTimeout
            window.held = []
            window.setTimeout = (then, ms, ...rest) => (ms === 6000 ? window.held.push(then) && 0 : real(then, ms, ...rest))
        }"""
    )


def let_go(page: Page) -> None:
    """End the six seconds."""
    page.evaluate("window.held.splice(0).forEach(then => { then() })")


def test_retry_from_start_asks_first(page: Page) -> None:
    page.goto(page.url + "?q=not.type:script&tab=failed")
    page.wait_for_selector(".of-failed.bar")
    enter(page)
    sent: list[str | None] = []
    page.on("request", lambda one: sent.append(one.post_data) if one.url.endswith("/retry") else None)
    ask, dialog = page.get_by_role("button", name="Retry from start"), page.get_by_role("dialog")
    ask.click()
    expect(dialog).to_contain_text("Its checkpoint, state and kept results are discarded.")
    dialog.get_by_role("button", name="Don't retry").click()
    expect(dialog).to_have_count(0)
    assert sent == []
    ask.click()
    with page.expect_response("**/retry") as answer:
        dialog.get_by_role("button", name="Retry job").click()
    assert answer.value.json()["status"] == "pending"
    assert sent == ['{"from_start":true}']


def test_many_are_cancelled_after_a_dry_run(stage: Stage, page: Page) -> None:
    names = [f"many-{letter}.pdf" for letter in "abcd"]
    with stage.paused():  # so that all of them still wait when they are chosen
        ids = [stage.submit(f"/data/{name}") for name in names]
        to_filter(page)
        page.keyboard.type(names[0])
        expect(page.locator(".body-row")).to_have_count(1)
        page.keyboard.press("Escape")
        expect(page.locator("#grid")).to_be_focused()
        page.keyboard.press("j")
        assert cursor(page) == ids[0]
        confirmed(page, "c", "Cancel job")
        expect(page.locator(".body-row .unseen").first).to_have_text("cancelled")
        page.fill("#filter", "")
        until(page, "!location.search.includes('many')")
        for job_id in ids:
            page.locator(f"[id='row-{job_id}'] .pick").click()
        expect(page.locator(".chosen b")).to_have_text("4 selected")
        page.locator(".chosen").get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("dialog")).to_contain_text("3 of 4 jobs will be cancelled")
        remember_toasts(page)
        page.get_by_role("dialog").get_by_role("button", name="Cancel 3").click()
        expect_toast(page, "3 cancelled")


def test_all_matching_are_counted_before_they_are_deleted_and_come_back(stage: Stage, page: Page) -> None:
    page.goto(stage.jobs + "?q=type:reindex%20status:completed")
    page.wait_for_selector(".body-row")
    count = stage.api("jobs", q="type:reindex status:completed", limit=1)["total"]
    hold_undo(page)
    page.keyboard.press("a")
    page.locator(".chosen").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("^Delete \\d")).click()
    page.locator(".toast").filter(has_text="Deleting").get_by_role("button", name="Undo").click()
    expect(page.locator(".body-row").first).to_be_visible()
    assert stage.api("jobs", q="type:reindex status:completed", limit=1)["total"] >= count


def test_a_deletion_is_carried_out_after_its_time(stage: Stage, page: Page) -> None:
    job_id = stage.api("jobs", status="cancelled", limit=1)["jobs"][0]["job_id"]
    page.goto(f"{stage.jobs}?page=job&job={job_id}")
    page.context.watch.forgiven += ["status of 404"]  # type: ignore[attr-defined]
    hold_undo(page)
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Deleted.", exact=True)).to_be_visible()
    assert stage.api(f"jobs/{job_id}")["job_id"] == job_id, "for six seconds it is only hidden"
    let_go(page)
    expect(page.locator("h1")).to_have_text("Job not found")


def test_leaving_the_page_decides(stage: Stage, page: Page) -> None:
    job_id = stage.api("jobs", status="cancelled", limit=1)["jobs"][0]["job_id"]
    page.goto(f"{stage.jobs}?page=job&job={job_id}")
    page.get_by_role("button", name="Delete").click()
    page.goto(stage.jobs)
    eventually(page, lambda: page.context.request.get(f"{stage.url}/api/jobs/{job_id}").status == 404)


def test_a_filter_is_completed_kept_in_the_address_and_undone_by_back(stage: Stage, page: Page) -> None:
    to_filter(page)
    page.keyboard.type("sta")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.type("fai")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    until(page, "location.search === '?q=status:failed+' || location.search === '?q=status:failed'")
    until(page, "document.querySelectorAll('.of-failed.bar').length > 0")
    page.reload()
    assert page.input_value("#filter").strip() == "status:failed"
    page.locator(".body-row").first.click()
    expect(page.locator(".pane [role=tab][aria-selected=true]")).to_have_text("Error")
    page.go_back()
    expect(page.locator(".pane")).to_have_count(0)


def test_what_to_drop_when_nothing_matches(stage: Stage, page: Page) -> None:
    page.goto(stage.jobs + "?q=type:ingestion%20nosuchword")
    page.get_by_role("button", name="Remove nosuchword").click()
    page.wait_for_selector(".body-row")
    assert page.input_value("#filter") == "type:ingestion"


def test_copying_as_commands(stage: Stage, page: Page) -> None:
    page.locator(".body-row").first.click()
    job_id = page.evaluate("new URLSearchParams(location.search).get('job')")
    for name, text in (("CLI", f"milepost --url {stage.url} "), ("curl", f"curl {stage.url}/api/jobs/{job_id}")):
        page.get_by_text("Copy as…").click()
        remember_toasts(page)
        page.get_by_role("button", name=name, exact=True).click()
        until(page, "async text => (await navigator.clipboard.readText()).startsWith(text)", text)
        expect_toast(page, "Command copied")


def test_choosing_with_shift(page: Page) -> None:
    page.locator(".body-row").first.hover()  # from here on nothing moves
    page.locator(".body-row .pick").nth(1).click()
    page.locator(".body-row .pick").nth(4).click(modifiers=["Shift"])
    expect(page.locator(".chosen b")).to_have_text("4 selected")
    page.keyboard.press("Escape")
    expect(page.locator(".chosen")).to_have_count(0)


def test_the_keys_act_on_the_job_that_is_looked_at(stage: Stage, page: Page) -> None:
    """Not on the row at which the keyboard was before a link opened another job, or before the filter changed."""
    with stage.paused():
        before, after = stage.submit("/data/before.pdf"), stage.submit("/data/after.pdf")
        page.goto(stage.jobs + "?tab=pending")
        page.locator(f"[id='row-{before}'] .message").click()
        expect(page.locator(".pane .chip")).to_have_text("pending")
        page.locator(f"[id='row-{after}'] .message").click()
        until(page, "id => location.search.includes(id)", after)
        page.evaluate("history.pushState(null, '', location.href)")
        page.evaluate("id => history.replaceState(null, '', `?tab=pending&job=${id}`)", before)
        page.evaluate("dispatchEvent(new PopStateEvent('popstate'))")  # as Back and links from other pages do
        expect(page.locator(f"[id='row-{before}']")).to_have_class(re.compile("open"))
        expect(page.locator(".pane .chip")).to_have_text("pending")
        confirmed(page, "c", "Cancel job")
        eventually(page, lambda: stage.api(f"jobs/{before}")["status"] == "cancelled")
        assert stage.api(f"jobs/{after}")["status"] == "pending"
        page.goto(stage.jobs + "?tab=pending")
        page.wait_for_selector(f"[id='row-{after}']")

        def is_reached() -> bool:
            page.keyboard.press("j")
            return cursor(page) == after

        eventually(page, is_reached)  # the server has newer jobs of its own
        page.keyboard.press("4")  # completed jobs: the pending one is no longer seen
        until(
            page, "document.querySelector('.of-completed.bar') !== null && !document.querySelector('.of-pending.bar')"
        )
        with page.expect_response("**/stats?**"):  # something that comes after what the key would have sent
            page.keyboard.press("c")
            page.keyboard.press("g")
            page.keyboard.press("o")
        assert stage.api(f"jobs/{after}")["status"] == "pending", "nothing is done to a row that cannot be seen"


def test_deleting_steps_to_the_next_job_and_counts(stage: Stage, page: Page) -> None:
    page.goto(stage.jobs + "?q=type:clustering&tab=completed")
    page.wait_for_selector(".body-row")

    def counted() -> bool:
        total = stage.api("jobs", q="type:clustering status:completed", limit=1)["total"]
        return page.locator(".foot span").first.inner_text() == f"{total:,} jobs"

    eventually(page, counted)  # jobs of the type end meanwhile
    page.keyboard.press("j")
    first = cursor(page)
    page.keyboard.press("j")
    until(page, "id => document.querySelector('.row.cursor').id !== `row-${id}`", first)
    second = cursor(page)
    page.keyboard.press("k")
    until(page, "id => document.querySelector('.row.cursor').id === `row-${id}`", first)
    hold_undo(page)
    page.keyboard.press("#")
    until(page, "id => document.querySelector('.row.cursor')?.id === `row-${id}`", second)
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        for _ in range(3):  # what is said meanwhile does not push the undo away
            page.keyboard.press("f")
        expect(page.locator(".toast").filter(has_text="Deleted")).to_be_visible()
        let_go(page)
    eventually(page, counted)


def test_a_filter_that_cannot_be_read_shows_no_jobs_of_another(stage: Stage, page: Page) -> None:
    page.context.watch.forgiven += ["status of 422"]  # type: ignore[attr-defined]
    page.fill("#filter", "status:nosuch")
    page.keyboard.press("Enter")
    expect(page.locator(".empty pre")).to_be_visible()
    expect(page.locator(".body-row")).to_have_count(0)
    page.get_by_role("button", name="Clear the filter").last.click()
    expect(page.locator(".body-row").first).to_be_visible()


def test_a_question_about_many_does_not_wait_on_another_page(stage: Stage, opened: Opened) -> None:
    page = opened(stage.jobs + "?page=overview")
    page.wait_for_selector(".tile")
    page.keyboard.press("g")
    page.keyboard.press("j")
    page.wait_for_selector(".body-row")
    page.keyboard.press("a")
    page.keyboard.press("c")
    page.wait_for_selector("dialog footer")
    page.go_back()
    expect(page.locator("dialog")).to_have_count(0)
    page.keyboard.press("g")
    page.keyboard.press("f")
    page.wait_for_selector(".group")
    expect(page.locator("dialog")).to_have_count(0)
