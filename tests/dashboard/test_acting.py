"""What can be done: every shortcut of the help, choosing many, undoing, filters and the address."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.conftest import Opened, Stage, eventually, until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def page(stage: Stage, opened: Opened) -> Page:
    page = opened(stage.jobs, permissions=["clipboard-read", "clipboard-write"])
    page.wait_for_selector(".body-row")
    return page


def cursor(page: Page) -> str:
    """The job at the keyboard's place, once there is one."""
    expect(page.locator("#grid")).to_have_attribute("aria-activedescendant", re.compile("row-"))
    return str(page.locator("#grid").get_attribute("aria-activedescendant")).removeprefix("row-")


def to_filter(page: Page) -> None:
    page.keyboard.press("/")
    expect(page.locator("#filter")).to_be_focused()


# One test for each line of the help; test_every_line_of_the_help_is_tried compares the two.
def slash(page: Page) -> None:
    to_filter(page)
    page.keyboard.press("Escape")
    expect(page.locator("#grid")).to_be_focused()


def j_k(page: Page) -> None:
    page.keyboard.press("j")
    first = cursor(page)
    page.keyboard.press("j")
    until(
        page, "first => !document.getElementById('grid').getAttribute('aria-activedescendant').endsWith(first)", first
    )
    page.keyboard.press("k")
    until(page, "first => document.getElementById('grid').getAttribute('aria-activedescendant').endsWith(first)", first)


def enter(page: Page) -> None:
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator(".pane h1")).to_be_visible()


def escape(page: Page) -> None:
    enter(page)
    page.keyboard.press("Escape")
    expect(page.locator(".pane")).to_have_count(0)


def x(page: Page) -> None:
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator(".chosen b")).to_have_text("1 selected")
    page.keyboard.press("x")
    expect(page.locator(".chosen")).to_have_count(0)


def a(page: Page) -> None:
    page.keyboard.press("a")
    expect(page.locator(".chosen b")).to_have_text(re.compile(r"^[\d,]{3,} selected$"))


def c(page: Page) -> None:
    page.goto(page.url + "?q=not.type:script&tab=running")
    page.wait_for_selector(".of-running.bar")
    enter(page)
    page.keyboard.press("c")
    expect(page.locator(".pane .chip")).to_have_text(re.compile("stopping|cancelled"))


def r(page: Page) -> None:
    page.goto(page.url + "?q=not.type:script&tab=failed")  # a job that its caller drives cannot be retried
    page.wait_for_selector(".of-failed.bar")
    enter(page)
    page.keyboard.press("r")
    expect(page.locator(".pane .chip")).to_have_text(re.compile("pending|running|completed"))


def hash_(page: Page) -> None:
    page.keyboard.press("j")
    gone = cursor(page)
    page.keyboard.press("#")
    expect(page.locator(f"[id='row-{gone}']")).to_have_count(0)


def u(page: Page) -> None:
    page.keyboard.press("j")
    gone = cursor(page)
    page.keyboard.press("#")
    expect(page.locator(f"[id='row-{gone}']")).to_have_count(0)
    page.keyboard.press("u")
    expect(page.locator(f"[id='row-{gone}']")).to_have_count(1)


def space(page: Page) -> None:
    page.keyboard.press("Space")
    expect(page.locator(".live")).to_contain_text("Paused")


def f(page: Page) -> None:
    page.goto(page.url + "?q=not.type:script&tab=running")
    page.wait_for_selector(".of-running.bar")
    enter(page)
    expect(page.get_by_label("Follow the newest line")).to_be_checked()
    page.keyboard.press("f")
    expect(page.get_by_label("Follow the newest line")).not_to_be_checked()


def y(page: Page) -> None:
    page.keyboard.press("j")
    there = cursor(page)
    page.keyboard.press("y")
    expect(page.locator(".toast")).to_contain_text("Id copied")
    assert page.evaluate("navigator.clipboard.readText()") == there


def numbers(page: Page) -> None:
    for key, tab in zip(
        "1234567", ("All", "Pending", "Running", "Completed", "Failed", "Cancelled", "Stalled"), strict=True
    ):
        page.keyboard.press(key)
        expect(page.locator(".tabs [aria-current]")).to_contain_text(tab)


def place(keys: str, title: str) -> object:
    def there(page: Page) -> None:
        if keys == "g j":
            page.keyboard.press("g")
            page.keyboard.press("f")
            expect(page.locator("h1")).to_have_text("Failures")
        for key in keys.split():
            page.keyboard.press(key)
        expect(page.locator("h1").first).to_have_text(title)

    return there


def t(page: Page) -> None:
    page.keyboard.press("t")
    until(page, "document.documentElement.dataset.theme === 'dark'")
    page.reload()
    until(page, "document.documentElement.dataset.theme === 'dark'")


def question(page: Page) -> None:
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()


def palette(page: Page) -> None:
    page.keyboard.press("Control+k")
    expect(page.locator("dialog input")).to_be_focused()  # the palette is fetched when it is first asked for
    page.keyboard.type("over")
    expect(page.locator("dialog [role=option]").first).to_contain_text("Overview")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Overview")


SHORTCUTS = {
    "/": slash, "j k": j_k, "Enter": enter, "Esc": escape, "x": x, "a": a, "c": c, "r": r, "#": hash_, "u": u, "Space": space,
    "f": f, "y": y, "1 … 7": numbers, "g j": place("g j", "Jobs"), "g f": place("g f", "Failures"),
    "g o": place("g o", "Overview"), "g t": place("g t", "Types"), "g w": place("g w", "Workers"), "t": t, "?": question,
    "Ctrl K": palette,
}  # fmt: skip


@pytest.mark.parametrize("keys", SHORTCUTS)
def test_shortcut(page: Page, keys: str) -> None:
    SHORTCUTS[keys](page)  # type: ignore[operator]


def test_every_line_of_the_help_is_tried(page: Page) -> None:
    page.keyboard.press("?")
    shown = page.locator(".keys li").evaluate_all(
        "all => all.map(one => one.lastElementChild.innerText.trim().split(/\\s+/).join(' '))"
    )
    shown = [" ".join(re.findall(r"…|Enter|Esc|Space|Ctrl|\S", text)) for text in shown]
    assert shown == list(SHORTCUTS)


def test_keys_in_a_field_are_text(page: Page) -> None:
    to_filter(page)
    page.keyboard.type("jxa#ctr ?")
    assert page.input_value("#filter") == "jxa#ctr ?"
    expect(page.get_by_role("dialog")).to_have_count(0)


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
        page.keyboard.press("c")
        expect(page.locator(".body-row .unseen").first).to_have_text("cancelled")
        page.fill("#filter", "")
        until(page, "!location.search.includes('many')")
        for job_id in ids:
            page.locator(f"[id='row-{job_id}'] .pick").click()
        expect(page.locator(".chosen b")).to_have_text("4 selected")
        page.locator(".chosen").get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("dialog")).to_contain_text("3 of 4 jobs will be cancelled")
        page.get_by_role("dialog").get_by_role("button", name="Cancel 3").click()
        expect(page.locator(".toast").filter(has_text="3 cancelled")).to_be_visible()


def test_all_matching_are_counted_before_they_are_deleted_and_come_back(stage: Stage, page: Page) -> None:
    page.goto(stage.jobs + "?q=type:reindex%20status:completed")
    page.wait_for_selector(".body-row")
    count = stage.api("jobs", q="type:reindex status:completed", limit=1)["total"]
    page.keyboard.press("a")
    page.locator(".chosen").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("^Delete \\d")).click()
    page.locator(".toast").filter(has_text="Deleting").get_by_role("button", name="Undo").click()  # within 6 s
    expect(page.locator(".body-row").first).to_be_visible()
    assert stage.api("jobs", q="type:reindex status:completed", limit=1)["total"] >= count


def test_a_deletion_is_carried_out_after_its_time(stage: Stage, page: Page) -> None:
    job_id = stage.api("jobs", status="cancelled", limit=1)["jobs"][0]["job_id"]
    page.goto(f"{stage.jobs}?page=job&job={job_id}")
    page.context.watch.forgiven += ["status of 404"]  # type: ignore[attr-defined]
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Deleted.", exact=True)).to_be_visible()
    assert stage.api(f"jobs/{job_id}")["job_id"] == job_id, "for six seconds it is only hidden"
    expect(page.locator("h1")).to_have_text("Deleted or expired")


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
    page.get_by_role("button", name="Without nosuchword").click()
    page.wait_for_selector(".body-row")
    assert page.input_value("#filter") == "type:ingestion"


def test_copying_as_commands(stage: Stage, page: Page) -> None:
    page.locator(".body-row").first.click()
    job_id = page.evaluate("new URLSearchParams(location.search).get('job')")
    for name, text in (("CLI", f"milepost --url {stage.url} "), ("curl", f"curl {stage.url}/api/jobs/{job_id}")):
        page.get_by_text("Copy as…").click()
        page.get_by_role("button", name=name, exact=True).click()
        until(page, "async text => (await navigator.clipboard.readText()).startsWith(text)", text)
        expect(page.locator(".toast").last).to_contain_text("Command copied")


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
        page.keyboard.press("c")
        eventually(page, lambda: stage.api(f"jobs/{before}")["status"] == "cancelled")
        assert stage.api(f"jobs/{after}")["status"] == "pending"
        page.goto(stage.jobs + "?tab=pending")
        page.wait_for_selector(f"[id='row-{after}']")
        page.keyboard.press("j")
        assert cursor(page) == after
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
    count = stage.api("jobs", q="type:clustering status:completed", limit=1)["total"]
    expect(page.locator(".foot span").first).to_have_text(f"{count:,} jobs")
    page.keyboard.press("j")
    first = cursor(page)
    page.keyboard.press("j")
    until(page, "id => document.querySelector('.row.cursor').id !== `row-${id}`", first)
    second = cursor(page)
    page.keyboard.press("k")
    until(page, "id => document.querySelector('.row.cursor').id === `row-${id}`", first)
    page.keyboard.press("#")
    until(page, "id => document.querySelector('.row.cursor')?.id === `row-${id}`", second)
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        for _ in range(3):  # what is said meanwhile does not push the undo away
            page.keyboard.press("f")
        expect(page.locator(".toast").filter(has_text="Deleted")).to_be_visible()
    eventually(
        page,
        lambda: (
            page.locator(".foot span").first.inner_text()
            == f"{stage.api('jobs', q='type:clustering status:completed', limit=1)['total']:,} jobs"
        ),
    )


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
