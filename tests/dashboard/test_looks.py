"""What can be seen while the server is gone, in forced colours, and in a narrow list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.dashboard.conftest import STATIC, Opened, axe
from tests.dashboard.worker_server import WorkerServer, row

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (STATIC / "index.html").is_file(), reason="the dashboard is not built"),
]

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
