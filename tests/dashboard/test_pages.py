"""Every page in both themes and both widths: axe finds nothing, nothing scrolls sideways, nothing leaves the origin."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.conftest import SAME_ORIGIN, Opened, Stage, axe, expect_toast, remember_toasts, until
from tests.dashboard.stage import HOSTILE

pytestmark = pytest.mark.timeout(300)

PAGES = {
    "jobs": ("", ".body-row"),
    "nothing": ("?q=nosuchthing", ".empty button"),
    "wrong": ("?q=status:nosuch", ".empty pre"),
    "failures": ("?page=failures", ".group"),
    "overview": ("?page=overview", ".mini"),
    "types": ("?page=types", ".numbers"),
    "submit": ("?page=types&type=ingestion", "dialog form"),
    "schedules": ("?page=schedules", "h1"),
    "usage": ("?page=usage&by=label:owner", ".spent li"),
    "workers": ("?page=workers", ".mini"),
    "gone": ("?page=job&job=nosuch", ".empty h1"),
}


def go(page: Page, query: str) -> None:
    """Go to another place of the page without loading it anew; what was open over it is closed."""
    page.evaluate("document.querySelector('dialog[open]')?.close()")
    page.evaluate(
        "query => { history.pushState(null, '', location.pathname + query); dispatchEvent(new PopStateEvent('popstate')) }",
        query,
    )
    page.evaluate("() => new Promise(done => setTimeout(done, 50))")


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_accessible(stage: Stage, opened: Opened, width: int, theme: str) -> None:
    page = opened(stage.jobs, width=width, height=844, theme=theme)
    forgive(page, "404", "422")
    wrong: dict[str, list[str]] = {}
    jobs = {
        status: stage.api("jobs", status=status, limit=1)["jobs"][0]["job_id"]
        for status in ("failed", "completed", "cancelled")
    }
    jobs["running"] = stage.lasting_job()
    places = {"job running": (f"?page=job&job={jobs['running']}", ".of-running [role=tabpanel]")} | PAGES
    places |= {
        f"job {look}": (f"?page=job&job={job_id}", f".of-{look} [role=tabpanel]")
        for look, job_id in jobs.items()
        if look != "running"
    }
    places |= {
        f"part {part}": (f"?page=job&job={jobs['cancelled']}&part={part}", f"#tab-{part}[aria-selected=true]")
        for part in ("params", "events", "attempts")
    }
    places["beside the list"] = (f"?job={jobs['failed']}", ".of-failed [role=tabpanel]")
    for name, (query, sign) in places.items():
        go(page, query)
        page.wait_for_selector(sign)
        found = axe(page)
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            found.append("scrolls sideways")
        if found:
            wrong[name] = found
    assert not wrong, "\n".join(f"{name}: {line}" for name, lines in wrong.items() for line in lines)


def forgive(page: Page, *parts: str) -> None:
    """Chromium says each refused request as an error; those that a test asks for are none."""
    page.context.watch.forgiven += [f"status of {part}" for part in parts]  # type: ignore[attr-defined]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_opens_over_the_page_is_accessible(stage: Stage, opened: Opened, theme: str) -> None:
    page = opened(stage.jobs, theme=theme)
    page.wait_for_selector(".body-row")
    for keys, sign in (("?", "dialog .keys"), ("Control+k", "dialog [role=option]"), ("/", ".options [role=option]")):
        page.keyboard.press(keys)
        page.wait_for_selector(sign)
        assert not axe(page), keys
        page.keyboard.press("Escape")
        expect(page.locator("dialog")).to_have_count(0)  # gone, and the focus back where it was
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.wait_for_selector(".chosen")
    assert not axe(page)
    page.click(".chosen .danger")
    page.wait_for_selector("dialog footer")
    assert not axe(page)


@pytest.fixture
def untouched() -> Iterator[Stage]:
    """A play in which no other test has cancelled or deleted a job."""
    stage = Stage(past=30, running=4)
    yield stage
    stage.close()


def test_hostile_names_are_text(untouched: Stage, opened: Opened) -> None:
    for query in (
        "?q=type:script",
        "?page=job&job=hostile",
        "?page=job&job=hostile&part=params",
        "?page=job&job=hostile&part=events",
    ):
        page = opened(untouched.jobs + query)
        expect(page.get_by_text(HOSTILE).first).to_be_visible()
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0


def test_the_policy_refuses_what_it_should(stage: Stage, opened: Opened) -> None:
    page = opened(stage.jobs)
    page.wait_for_selector(".body-row")
    page.context.watch.forgiven += ["Content Security Policy"]  # type: ignore[attr-defined]
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<button onclick=\"window.hacked=1\">x</button>')")
    page.evaluate("document.body.lastElementChild.click()")
    assert page.evaluate("window.hacked") is None


def test_a_type_is_submitted_from_its_schema(stage: Stage, opened: Opened) -> None:
    page = opened(stage.jobs + "?page=types")
    page.get_by_role("listitem").filter(has_text="extraction").get_by_role("link", name="Submit").click()
    page.get_by_role("button", name="Submit").click()
    assert page.locator("dialog input:invalid").count() == 1, "a required parameter is asked for"
    page.get_by_label("path").fill("/data/reports/new.pdf")
    page.get_by_label("model").select_option("large")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator(".pane h1")).to_have_text("extraction")
    job_id = page.evaluate("new URLSearchParams(location.search).get('job')")
    assert stage.api(f"jobs/{job_id}")["params"] == {"path": "/data/reports/new.pdf", "model": "large"}


def test_a_type_is_paused_and_resumed(stage: Stage, opened: Opened) -> None:
    page = opened(stage.jobs + "?page=types")
    item = page.get_by_role("listitem").filter(has_text="clustering")
    item.get_by_role("button", name="Pause").click()
    expect(item.get_by_text("paused")).to_be_visible()
    item.get_by_role("button", name="Resume").click()
    expect(item.get_by_role("button", name="Pause")).to_be_visible()


def test_what_is_no_number_does_not_take_a_limit_away(stage: Stage, opened: Opened) -> None:
    page = opened(stage.jobs + "?page=types")
    field = page.get_by_role("listitem").filter(has_text="clustering").get_by_label("Concurrency limit")
    expect(field).to_be_visible()
    remember_toasts(page)
    field.fill("7")
    field.press("Tab")
    expect_toast(page, "Concurrency limit set to 7")
    field.press("Control+a")
    field.press("-")
    field.press("Tab")
    expect_toast(page, "Enter a number")
    expect(field).to_have_value("7")
    field.fill("")
    field.press("Tab")
    expect_toast(page, "Concurrency limit removed")


def test_signing_in_and_what_a_reader_may(stage: Stage, opened: Opened) -> None:
    page = opened(f"{stage.second}/keyed/jobs/")
    forgive(page, "401")
    page.get_by_label("Key", exact=True).fill("mp_wrong_key")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("That key isn't valid. It may have been revoked or expired.")
    assert not axe(page)
    page.get_by_label("Key", exact=True).fill(stage.keys["reader"])
    page.get_by_role("button", name="Sign in").click()
    page.locator(".body-row").first.click()
    expect(page.get_by_role("button", name="Copy link")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel job")).to_have_count(0)
    expect(page.get_by_role("link", name="Workers")).to_have_count(0)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Key", exact=True)).to_be_visible()


def test_a_share_link_shows_one_job(stage: Stage, opened: Opened) -> None:
    page = opened(f"{stage.second}/keyed/jobs/")
    forgive(page, "401")
    page.get_by_label("Key", exact=True).fill(stage.keys["admin"])
    page.get_by_role("button", name="Sign in").click()
    page.locator(".body-row").first.click()
    with page.expect_response("**/share") as answer:
        page.get_by_role("button", name="Share").click()
    made = answer.value.json()
    job_id = page.evaluate("new URLSearchParams(location.search).get('job')")
    guest = opened(f"{stage.second}/keyed/jobs/?page=job&job={job_id}&share={made['token']}")
    forgive(guest, "401", "403")
    expect(guest.locator("#job-title")).to_be_visible()
    expect(guest.get_by_role("button", name="Delete")).to_have_count(0)
    expect(guest.locator(".top")).to_have_count(0)


def test_a_share_link_that_is_over_says_so_and_can_be_opened_with_a_key(stage: Stage, opened: Opened) -> None:
    job_id = stage.api("jobs", status="completed", limit=1)["jobs"][0]["job_id"]
    page = opened(f"{stage.second}/keyed/jobs/?page=job&job={job_id}&share=over")
    forgive(page, "401")
    expect(page.get_by_role("alert")).to_contain_text("This link is invalid or has expired")
    assert not axe(page)
    page.get_by_role("link", name="Sign in with a key").click()
    page.get_by_label("Key", exact=True).fill(stage.keys["reader"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#job-title")).to_be_visible()


@pytest.mark.parametrize("place", ["first /jobs/", "second /", "second /a/b/c/", "second /stripped/jobs/"])
def test_it_works_wherever_it_is_mounted(stage: Stage, opened: Opened, place: str) -> None:
    port, path = place.split()
    page = opened((stage.url if port == "first" else stage.second) + path)
    page.wait_for_selector(".body-row")
    expect(page.locator(".live")).to_contain_text("Live")
    page.locator(".tabs").get_by_text("Failed").click()
    page.wait_for_selector(".grid[aria-busy=false] .of-failed.bar")
    page.locator(".body-row").first.click()
    expect(page.locator(".pane .chip")).to_have_text("failed")
    page.reload()
    expect(page.locator(".pane .chip")).to_have_text("failed")


# How many pixels of the chart have the colour of what was completed, in the theme as it is.
DRAWN = """() => {
    const canvas = document.querySelector('.chart canvas')
    if (canvas === null) return 0
    const probe = document.createElement('i')
    probe.style.color = 'var(--completed)'
    document.body.append(probe)
    const colour = getComputedStyle(probe).color.match(/\\d+/g).map(Number).join()
    probe.remove()
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
    let found = 0
    for (let at = 0; at < data.length; at += 4) if (`${data[at]},${data[at + 1]},${data[at + 2]}` === colour) found += 1
    return found
}"""


def test_the_newest_bar_of_the_chart_is_seen(stage: Stage, opened: Opened) -> None:
    """It begins at its moment: where the last moment is the edge, current events would not fit."""
    page = opened(stage.jobs + "?page=types")
    page.context.watch.forgiven += ["getImageData"]  # type: ignore[attr-defined]
    stats = stage.api("stats", window="7d", step="2h")
    for step in stats["steps"]:
        step["completed"], step["failed"] = 0, 0
    stats["steps"][-1]["completed"] = 9
    page.route("**/api/stats?**", lambda route: route.fulfill(json=stats))
    go(page, "?page=overview&window=7d")
    expect(page.locator("figcaption")).to_have_text("9 completed, 0 failed")
    until(page, DRAWN)
    page.emulate_media(color_scheme="dark")  # as a system does in the evening
    until(page, DRAWN)


def test_long_words_stay_in_their_place(stage: Stage, opened: Opened) -> None:
    page = opened(stage.jobs)
    with stage.paused():
        job_id = stage.submit("/data/long.pdf")
        page.context.request.post(
            f"{stage.url}/api/jobs/{job_id}/cancel", headers=SAME_ORIGIN, data={"reason": "unbroken" * 40}
        )
    page.goto(f"{stage.jobs}?job={job_id}")
    expect(page.locator("[aria-label=Cancellation]")).to_contain_text("unbroken")
    assert page.evaluate("(pane => pane.scrollWidth <= pane.clientWidth)(document.querySelector('.pane'))")


def test_a_filter_typed_over_a_job_on_a_narrow_page_shows_its_answer(stage: Stage, opened: Opened) -> None:
    page = opened(stage.jobs, width=800)
    page.locator(".body-row").first.click()
    expect(page.locator("#job-title")).to_be_visible()
    page.fill("#filter", "status:failed")
    expect(page.locator("#job-title")).to_be_hidden()  # the job may be a failed one too
    expect(page.locator(".of-failed.bar").first).to_be_visible()
    page.go_back()
    expect(page.locator("#job-title")).to_be_visible()


def test_who_has_gone_to_another_page_is_not_called_back_by_a_filter(stage: Stage, opened: Opened) -> None:
    page = opened(stage.jobs + "?page=overview")
    page.wait_for_selector(".tile")
    page.evaluate("""() => {
        const field = document.getElementById('filter')
        field.value = 'handbook'
        field.dispatchEvent(new InputEvent('input', { bubbles: true }))
        document.querySelector('.where a[href*=types]').click()
    }""")
    expect(page.locator("#filter")).to_have_value("")
    assert "page=types" in page.url


def test_the_palette_opens_a_job_from_any_page(stage: Stage, opened: Opened) -> None:
    page = opened(stage.jobs)
    page.wait_for_selector(".body-row")  # it offers the jobs of the list, which has been read now
    go(page, "?page=overview")
    page.wait_for_selector(".mini")
    page.keyboard.press("Control+k")
    expect(page.locator("dialog input")).to_be_focused()
    page.keyboard.type("reindex")
    page.locator("dialog [role=option]").filter(has_text="Open reindex").first.click()
    expect(page.locator(".pane h1")).to_have_text("reindex")


def test_shortcuts_on_other_keyboards(stage: Stage, opened: Opened) -> None:
    page = opened(stage.jobs)
    page.wait_for_selector(".body-row")
    press = """([on, init]) => document.querySelector(on).dispatchEvent(
        new KeyboardEvent('keydown', { bubbles: true, cancelable: true, ...init }))"""
    page.evaluate(press, ["body", {"key": "5", "code": "Digit5", "shiftKey": True}])  # French
    expect(page.locator(".tabs [aria-current]")).to_contain_text("Failed")
    page.evaluate(press, ["body", {"key": "/", "code": "Digit7", "shiftKey": True}])  # German
    expect(page.locator("#filter")).to_be_focused()
    page.evaluate(press, ["#filter", {"key": "Enter", "isComposing": True}])  # Japanese: it ends a word, not the filter
    expect(page.locator("#filter")).to_be_focused()


def test_a_clock_that_is_wrong_changes_no_time(stage: Stage, opened: Opened) -> None:
    page = opened(stage.jobs)
    page.add_init_script("const real = Date.now; Date.now = () => real() + 7_200_000")  # two hours before the server
    job_id = stage.submit("/data/clock.pdf")
    page.reload()
    row = page.locator(f"[id='row-{job_id}']")
    expect(row.locator(".times").last).to_have_text(re.compile(r"^(now|\d+\ss ago|\d\smin ago)$"))
    known = [job for job in stage.running() if job["eta"] is not None]
    job_id = min(known, key=lambda job: float(job["progress"]))["job_id"]
    page.evaluate(
        "async source => { await import(new URL('milepost-job.js', location.href).href);"
        " const one = document.createElement('milepost-job'); one.setAttribute('src', source); document.body.prepend(one) }",
        f"/api/jobs/{job_id}",
    )
    until(page, "/about [^h]+ left$/.test(document.querySelector('milepost-job').shadowRoot.textContent)")
