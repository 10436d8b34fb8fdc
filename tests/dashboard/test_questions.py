"""A question is a form made from its schema; a job is paused and resumed by a button."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import uvicorn
from playwright.sync_api import expect

from milepost import Jobs, Run
from milepost.web import auth, create_app
from tests.dashboard.conftest import Opened, wait_until_served
from tests.services import free_port
from tests.waiting import until

pytestmark = pytest.mark.timeout(120)


@dataclass
class Approval:
    """What the form asks for."""

    approved: bool
    channel: Literal["web", "mail"]
    note: str = ""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Jobs, str]]:
    """Yield an application with a worker, and where its dashboard is."""
    store = f"sqlite:///{tmp_path}/jobs.db"
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(store, auth=auth.none()), port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    jobs = Jobs(store)

    @jobs.job
    def report(run: Run) -> list[Any]:
        ok = run.ask("publish", "Publish it?", Approval)
        return [asdict(ok), run.ask("copies", "How many copies?", int)]

    try:
        wait_until_served(f"http://127.0.0.1:{port}", 30)
        with jobs.run_workers():
            yield jobs, f"http://127.0.0.1:{port}/jobs/"
    finally:
        server.should_exit = True
        thread.join(30)
        jobs.close()


def test_question_is_answered_by_its_form(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served
    job = jobs.submit("report")
    until(lambda: jobs.get_job(job.job_id).questions)  # type: ignore[union-attr]
    page = opened(f"{address}?page=job&job={job.job_id}")
    first = page.get_by_role("form", name="Question publish")
    expect(first).to_contain_text("Publish it?")
    first.get_by_label("approved").check()
    first.get_by_label("channel").select_option("mail")
    first.get_by_role("button", name="Answer").click()
    second = page.get_by_role("form", name="Question copies")
    second.get_by_role("spinbutton").fill("3")
    second.get_by_role("button", name="Answer").click()
    assert jobs.wait(job, 30).result == [{"approved": True, "channel": "mail", "note": ""}, 3]
    expect(page.get_by_label("Question copies")).to_contain_text("Answered: 3")


def test_job_is_paused_and_resumed_by_a_button(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served
    job = jobs.submit("report", delay="1h")
    page = opened(f"{address}?page=job&job={job.job_id}")
    page.get_by_role("button", name="Pause", exact=True).click()
    resume = page.get_by_role("button", name="Resume", exact=True)
    expect(resume).to_be_visible()
    until(lambda: jobs.get_job(job.job_id).activity == "Paused; it has not started yet")  # type: ignore[union-attr]
    resume.click()
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
