"""What the tests of the keyboard share: the place in the list, a key that asks, the ways to the filter and to a job."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect


def cursor(page: Page) -> str:
    """The job at the keyboard's place, once there is one."""
    expect(page.locator("#grid")).to_have_attribute("aria-activedescendant", re.compile("row-"))
    return str(page.locator("#grid").get_attribute("aria-activedescendant")).removeprefix("row-")


def confirmed(page: Page, key: str, answer: str) -> None:
    """Press a key that asks, and give the answer that acts."""
    page.keyboard.press(key)
    page.get_by_role("dialog").get_by_role("button", name=answer).click()


def to_filter(page: Page) -> None:
    page.keyboard.press("/")
    expect(page.locator("#filter")).to_be_focused()


def enter(page: Page) -> None:
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator(".pane h1")).to_be_visible()
