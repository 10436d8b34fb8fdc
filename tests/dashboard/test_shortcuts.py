"""Every shortcut of the help, and keys that come early: before a dialog, a list or the session is there."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.dashboard.conftest import SAME_ORIGIN, Stage, eventually, expect_toast, remember_toasts, until
from tests.dashboard.keyboard import confirmed, cursor, enter, to_filter

pytestmark = pytest.mark.timeout(300)


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
    confirmed(page, "c", "Cancel job")
    expect(page.locator(".pane .chip")).to_have_text(re.compile("stopping|cancelled"))


def r(page: Page) -> None:
    page.goto(page.url + "?q=not.type:script&tab=failed")  # a manual job cannot be retried
    page.wait_for_selector(".of-failed.bar")
    enter(page)
    with page.expect_response("**/retry") as answer:
        confirmed(page, "r", "Retry job")
    assert answer.value.json()["status"] == "pending"  # it may have failed again before the page could show that


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
    page.goto(page.url + "?q=type:extraction&tab=completed")  # its jobs log, and these do not end meanwhile
    page.wait_for_selector(".of-completed.bar")
    enter(page)
    page.get_by_role("tab", name="Log").click()
    expect(page.get_by_label("Follow")).to_be_checked()
    page.keyboard.press("f")
    expect(page.get_by_label("Follow")).not_to_be_checked()


def y(page: Page) -> None:
    page.keyboard.press("j")
    there = cursor(page)
    remember_toasts(page)
    page.keyboard.press("y")
    expect_toast(page, "Id copied")
    assert page.evaluate("navigator.clipboard.readText()") == there


def numbers(page: Page) -> None:
    for key, tab in zip(
        "12345678", ("All", "Pending", "Running", "Completed", "Failed", "Cancelled", "Stalled", "On hold"), strict=True
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
    "g o": place("g o", "Overview"), "g t": place("g t", "Types"), "g u": place("g u", "Usage"), "g w": place("g w", "Workers"),
    "t": t, "?": question, "Ctrl K": palette,
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


def test_keys_typed_at_once_find_the_dialog_that_the_first_one_opens(stage: Stage, page: Page) -> None:
    """A key after `c` acted on the page below, because the dialog opened only with the next frame."""
    with page.expect_response("**/api/session"):
        page.goto(stage.jobs + "?q=status:running")
    page.wait_for_selector(".body-row")
    page.keyboard.press("j")
    cursor(page)
    focused = page.evaluate(
        "async () => { document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'c', bubbles: true}));"
        " for (let task = 0; task < 10; task++) await null;"  # no frame is drawn and no key is read in between
        " return document.querySelector('dialog[open]')?.contains(document.activeElement)"
        " && document.activeElement.textContent }"
    )
    assert focused == "Don't cancel"


def test_key_acts_on_the_open_job_while_the_list_is_read(stage: Stage, page: Page) -> None:
    """The list keeps changes back until it has been read, and its row of the open job was out of date until then."""
    with stage.paused():
        job_id = stage.submit("/data/slow.pdf")
        held: list[Route] = []
        holds: list[bool] = []
        page.route("**/api/jobs?**", lambda route: held.append(route) if holds else route.continue_())
        page.goto(f"{stage.jobs}?tab=pending")
        page.locator(f"[id='row-{job_id}'] .message").click()
        expect(page.locator(".pane .chip")).to_have_text("pending")
        holds.append(True)
        page.locator(".tabs a").first.click()
        eventually(page, lambda: held)
        page.context.request.post(f"{stage.url}/api/jobs/{job_id}/cancel", headers=SAME_ORIGIN)
        expect(page.locator(".pane .chip")).to_have_text("cancelled")
        page.keyboard.press("r")
        expect(page.get_by_role("dialog")).to_contain_text("Retry this job?")
        page.get_by_role("dialog").get_by_role("button", name="Don't retry").click()
        for one in held:
            one.continue_()


def test_key_pressed_before_the_session_is_known_asks_when_it_is(stage: Stage, page: Page) -> None:
    held: list[Route] = []
    with stage.paused():
        job_id = stage.submit("/data/early.pdf")
        page.route("**/api/session", lambda route: held.append(route))
        page.goto(f"{stage.jobs}?tab=pending")
        page.wait_for_selector(f"[id='row-{job_id}']")
        page.keyboard.press("j")
        cursor(page)
        page.keyboard.press("c")
        expect(page.get_by_role("dialog")).to_have_count(0)
        eventually(page, lambda: held)
        held[0].continue_()
        expect(page.get_by_role("dialog")).to_contain_text("Cancel this job?")
        expect(page.locator(".toast")).to_have_count(0)
        page.keyboard.press("Escape")
        page.context.request.post(f"{stage.url}/api/jobs/{job_id}/cancel", headers=SAME_ORIGIN)
