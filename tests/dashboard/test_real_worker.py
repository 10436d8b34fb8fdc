"""What the pages say of jobs that a real worker runs, on SQLite and on Redis."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.dashboard.conftest import PATIENCE, Opened, eventually, until
from tests.dashboard.worker_server import WorkerServer, row

pytestmark = pytest.mark.timeout(300)


def test_row_pane_element_and_command_say_the_same(server: WorkerServer, opened: Opened) -> None:
    done = server.submit("staged", n=2, pause=0.0)
    failed = server.submit("broken")
    running = server.submit("staged", n=4000)
    page = opened(server.url + "/jobs/")
    expect(row(page, done).locator(".message")).to_have_text("2 steps")
    expect(row(page, failed).locator(".message")).to_contain_text("page 7 cannot be read")
    expect(row(page, running).locator(".message")).to_contain_text("Working")
    expect(row(page, running).locator(".message")).to_contain_text("of 4,000 steps")
    assert "Job created" not in page.inner_text("body")
    for job_id in (done, failed, running):
        page.goto(f"{server.url}/jobs/?job={job_id}")
        says = page.locator(".pane .says")
        eventually(
            page,
            lambda says=says, job_id=job_id: says.inner_text() == row(page, job_id).locator(".message").inner_text(),
        )
        assert "Job created" not in page.inner_text("body")
    listed = subprocess.run(
        [sys.executable, "-c", "from milepost.cli import main; main()", "--url", server.url, "ls"],
        capture_output=True, text=True, check=True, timeout=PATIENCE,
    ).stdout  # fmt: skip
    assert "2 steps" in listed
    assert "page 7 cannot be read" in listed
    assert "of 4,000 steps" in listed
    assert "Job created" not in listed


def test_result_that_was_not_stored_is_shown_as_text(server: WorkerServer, opened: Opened) -> None:
    job_id = server.submit("unstored")
    page = opened(f"{server.jobs}?job={job_id}")
    expect(page.locator("#tab-result[aria-selected=true]")).to_be_visible()
    panel = page.locator("[role=tabpanel]")
    expect(panel).to_contain_text(
        "completed, but its result was not stored: result.lock: lock is not JSON-serialisable"
    )
    expect(panel.locator("pre")).to_contain_text("{'rows': [1, 2], 'lock': <unlocked _thread.lock object at")
    expect(panel.locator("pre.json")).to_have_count(0)
    expect(row(page, job_id).locator(".message")).to_contain_text("Result not stored: result.lock")


def test_percentage_is_the_share_of_the_only_stage(server: WorkerServer, opened: Opened) -> None:
    job_id = server.submit("loop", n=400, pause=0.05)  # still runs while the page is looked at
    page = opened(f"{server.jobs}?job={job_id}")
    until(page, "parseInt(document.querySelector('.pane .big')?.textContent ?? '0') > 10")
    pairs = page.evaluate("""async () => {
        const seen = []
        for (let at = 0; at < 20; at++) {
            const done = /([\\d,]+) of ([\\d,]+)/.exec(document.querySelector('.pane .says').textContent)
            seen.push([parseInt(document.querySelector('.pane .big').textContent), Number(done[1]) / Number(done[2]) * 100])
            await new Promise(go => setTimeout(go, 50))
        }
        return seen
    }""")
    assert all(abs(shown - true) <= 1 for shown, true in pairs), pairs


def test_percentage_does_not_jump_at_the_end(server: WorkerServer, opened: Opened, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job_id = server.submit("held", gate=str(gate), n=100, at=97)
    page = opened(f"{server.jobs}?job={job_id}")
    expect(page.locator(".pane .says")).to_have_text("97 of 100 items")
    expect(page.locator(".pane .big")).to_have_text("97%")
    expect(row(page, job_id).locator(".how-far")).to_have_text("97%")
    gate.touch()
    expect(page.locator(".pane .chip")).to_have_text("completed")
    expect(page.locator(".pane .big")).to_have_text("100%")


def test_unknown_later_stages_leave_only_the_percentage_of_the_stage(
    server: WorkerServer, opened: Opened, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    job_id = server.submit("two-stages", first=str(first), second=str(second))
    page = opened(f"{server.jobs}?job={job_id}")
    big, says = page.locator(".pane .big"), page.locator(".pane .says")
    expect(says).to_have_text("Loading 2 of 4 pages")
    expect(big).to_have_text("50%")
    first.touch()
    expect(says).to_have_text("Embedding 2 of 4 pages")
    expect(big).to_have_text("stage 2: 50%")
    expect(row(page, job_id).locator(".how-far")).to_have_text("stage 2: 50%")
    second.touch()
    expect(page.locator(".pane .chip")).to_have_text("completed")


def test_pending_job_names_its_reason(server: WorkerServer, opened: Opened) -> None:
    server.pause("loop")
    job_id = server.submit("loop")
    page = opened(f"{server.jobs}?job={job_id}")
    expect(row(page, job_id).locator(".message")).to_have_text("Type loop is paused")
    expect(page.locator(".pane .says")).to_have_text("Type loop is paused")
    page.goto(f"{server.jobs}?page=overview")
    oldest = page.locator(".tile").filter(has_text="Oldest pending")
    expect(oldest).to_have_text(re.compile(r"^Oldest pending\d+\ssType loop is paused$"))
    oldest.get_by_role("link").click()
    expect(page.locator(".pane .says")).to_have_text("Type loop is paused")
    assert job_id in page.url


def test_typing_a_word_changes_no_job(server: WorkerServer, opened: Opened) -> None:
    job_id = server.submit("loop")
    page = opened(server.url + "/jobs/")
    row(page, job_id).locator(".message").click()
    expect(page.locator(".pane .chip")).to_have_text("running")
    page.keyboard.type("crm cancel retry")
    page.wait_for_timeout(1000)
    assert server.job(job_id)["status"] == "running"
    assert server.job(job_id)["attempt"] == 1


def test_open_job_is_closed_by_mouse(server: WorkerServer, opened: Opened) -> None:
    job_id = server.submit("staged", n=1, pause=0.0)
    page = opened(server.url + "/jobs/")
    row(page, job_id).locator(".message").click()
    page.get_by_role("button", name="Close the job").click()
    expect(page.locator(".pane")).to_have_count(0)


def test_twenty_elements_share_one_connection(server: WorkerServer, opened: Opened) -> None:
    ids = [server.submit("staged", n=1, pause=0.0) for _ in range(20)]
    page = opened(server.url + "/jobs/?page=types")
    streams: list[str] = []
    page.on("request", lambda request: streams.append(request.url) if "ids=" in request.url else None)
    page.evaluate(
        """async ids => {
            await import(new URL('milepost-job.js', location.href).href)
            for (const id of [...ids, 'nosuch']) {
                const one = document.createElement('milepost-job')
                one.setAttribute('src', `/api/jobs/${id}`)
                document.body.append(one)
            }
        }""",
        ids,
    )
    shown = "[...document.querySelectorAll('milepost-job')].map(one => one.shadowRoot.textContent)"
    until(page, f"{shown}.filter(text => text.includes('1 steps')).length === 20")
    assert page.evaluate(f"{shown}.at(-1)") == "Job not found. It may have been deleted or expired."
    assert len(streams) == 1


def test_phone_shows_a_first_row_and_keeps_the_column_headers(server: WorkerServer, opened: Opened) -> None:
    server.submit("staged", n=1, pause=0.0)
    page = opened(server.url + "/jobs/", width=390, height=844)
    expect(page.locator("[role=row]").first).to_be_visible()
    expect(page.locator(".body-row").first).to_be_visible()
    assert page.get_by_role("columnheader").count() >= 4


@pytest.mark.usefixtures("dashboard")
def test_answers_are_compressed(server: WorkerServer) -> None:
    for _ in range(20):
        server.submit("staged", n=1, pause=0.0)
    answer = httpx.get(f"{server.url}/api/jobs", params={"fields": "row"}, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert "params" not in answer.json()["jobs"][0]
    page = httpx.get(f"{server.url}/jobs/", headers={"Accept-Encoding": "gzip"})
    script = page.text.split('src="./')[1].split('"')[0]
    asset = httpx.get(f"{server.url}/jobs/{script}", headers={"Accept-Encoding": "gzip"})
    assert asset.headers["content-encoding"] == "gzip"
