"""What can be seen while the server is gone, in forced colours, and in a narrow list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from milepost import Jobs, Run
from tests.dashboard.conftest import Opened, axe
from tests.dashboard.worker_server import WorkerServer, row

pytestmark = pytest.mark.timeout(300)

CUT = """() => {
    const wrong = []
    const box = document.getElementById('grid').getBoundingClientRect()
    const fits = (one, name) => { if (one.scrollWidth > one.clientWidth) wrong.push(`${name} overflows`) }
    fits(document.documentElement, 'page')
    fits(document.getElementById('grid'), 'list')
    fits(document.querySelector('.top'), 'header')
    for (const one of document.querySelectorAll('.pane, .pane .parts')) fits(one, one.className)
    for (const cell of document.querySelectorAll('.row > *')) {
        if (cell.offsetWidth === 0 || cell.textContent === "") continue
        const text = document.createRange()
        text.selectNodeContents(cell)
        const { left, right } = cell.classList.contains('cut') ? cell.getBoundingClientRect() : text.getBoundingClientRect()
        if (left < box.left || right > box.right || (!cell.classList.contains('cut') && cell.scrollWidth > cell.clientWidth))
            wrong.push(`${cell.className}: ${cell.textContent}`)
    }
    return wrong
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_offline_page_is_accessible(opened: Opened, tmp_path: Path, theme: str) -> None:
    server = WorkerServer(f"sqlite:///{tmp_path}/jobs.db")
    try:
        job_id = server.submit("broken")
        server.submit("loop", n=4000)
        page = opened(server.jobs, theme=theme)
        page.context.watch.forgiven += ["Failed to load resource", "ERR_"]  # type: ignore[attr-defined]
        row(page, job_id).locator(".message").click()
        expect(page.locator(".pane .chip")).to_have_text("failed")
        expect(page.locator(".live")).to_contain_text("Live")
    finally:
        server.close()
    expect(page.locator(".jobs.offline")).to_be_visible()
    assert axe(page) == []


def test_forced_colours_show_the_bar_and_the_current_places(
    server: WorkerServer, opened: Opened, tmp_path: Path
) -> None:
    job_id = server.submit("held", gate=str(tmp_path / "gate"), n=100, at=50)
    page = opened(f"{server.jobs}?tab=running&job={job_id}", forced_colors="active")
    expect(page.locator(".pane .big")).to_have_text("50%")
    colour = "one => getComputedStyle(one).backgroundColor"
    for bar in (row(page, job_id).locator(".bar"), page.locator(".pane .bar")):
        assert bar.evaluate(colour) != bar.locator("div").evaluate(colour)
    for current, other in (
        (".tabs [aria-current]", ".tabs a:not([aria-current])"),
        (".top > .where [aria-current]", ".top > .where a:not([aria-current])"),
        (".parts [aria-selected=true]", ".parts [aria-selected=false]"),
    ):
        assert page.locator(current).evaluate(colour) != page.locator(other).first.evaluate(colour), current
    outline = "one => getComputedStyle(one).outlineStyle"
    assert row(page, job_id).evaluate(outline) == "solid"
    assert axe(page) == []


@pytest.mark.parametrize("width", [1100, 1180, 1250, 1440])
def test_nothing_is_cut_beside_the_open_job(server: WorkerServer, opened: Opened, tmp_path: Path, width: int) -> None:
    failed = server.submit("broken")
    held = server.submit("held", gate=str(tmp_path / "gate"), n=100, at=50)
    server.submit("staged", n=3, pause=0.0)
    page = opened(server.jobs, width=width)
    expect(row(page, held).locator(".how-far")).to_have_text(re.compile("50%"))
    for job_id in (held, failed):
        row(page, job_id).locator(".message").click()
        expect(page.locator("#job-title")).to_be_visible()
        expect(row(page, job_id)).to_have_class(re.compile("open"))
        assert page.evaluate(CUT) == []


def test_phone_shows_all_parts_of_a_job_and_whole_placeholders(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served
    job = jobs.create_job("ingestion")
    page = opened(f"{address}?page=job&job={job.job_id}", width=390)
    parts = page.get_by_role("tablist", name="Parts of the job")
    expect(parts.get_by_role("tab")).to_have_count(6)
    assert parts.evaluate("one => [one.scrollWidth <= one.clientWidth, one.clientHeight < 40]") == [True, True]
    expect(page.locator("#filter")).to_have_attribute("placeholder", "Filter jobs")


def test_cancelled_job_that_never_started_has_no_time_of_stopping(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served

    @jobs.job
    def later(run: Run) -> None:
        """Never called."""

    job = jobs.submit(later.options(delay="1h"))
    jobs.cancel_job(job.job_id)
    page = opened(f"{address}?page=job&job={job.job_id}")
    expect(page.get_by_role("region", name="Cancellation").locator("p").last).to_have_text("Never started")


def test_tab_of_jobs_on_hold_says_which_it_counts(served: tuple[Jobs, str], opened: Opened) -> None:
    """It was called Waiting, and showed 0 beside jobs that wait for a worker or a limit."""
    jobs, address = served

    @jobs.job
    def step(run: Run) -> None:
        """Never called."""

    first = jobs.submit(step)
    jobs.submit(step.options(after=[first]))
    page = opened(address)
    tab = page.get_by_role("link", name="On hold 1")
    expect(tab).to_have_attribute(
        "title", re.compile("for other jobs, for an answer or a time, or are paused; not for a worker")
    )
    tab.click()
    expect(page.locator(".body-row")).to_have_count(1)


def test_server_without_documents_says_so(served: tuple[Jobs, str], opened: Opened) -> None:
    """The page was blank, and a search in it ended with an error."""
    jobs, address = served
    jobs.create_job("ingestion")
    page = opened(address)
    expect(page.locator(".body-row")).to_have_count(1)
    expect(page.locator(".top > .where a", has_text="Documents")).to_have_count(0)
    page.goto(f"{address}?page=documents")
    expect(page.get_by_text("This server does not search documents; milepost serve does.")).to_be_visible()
