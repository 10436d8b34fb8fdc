"""A question is a form made from its schema; a job is paused and resumed by a button."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pytest
from playwright.sync_api import expect

from milepost import Jobs, Run
from tests.dashboard.conftest import PATIENCE, Opened
from tests.waiting import until


@dataclass
class Approval:
    """What the form asks for."""

    approved: bool
    channel: Literal["web", "mail"]
    note: str = ""


def pay(run: Run) -> str:
    """Spend 0.4 USD."""
    run.add_usage(usd=0.4)
    return "paid "


@pytest.fixture
def served(served: tuple[Jobs, str]) -> Iterator[tuple[Jobs, str]]:
    """Yield an application with a worker, and where its dashboard is."""
    jobs, _ = served

    @jobs.job
    def report(run: Run) -> list[Any]:
        ok = run.ask("publish", "Publish it?", Approval)
        return [asdict(ok), run.ask("copies", "How many copies?", int)]

    @jobs.job
    def model(run: Run) -> str:
        return run.step("a", pay, run) + run.step("b", pay, run)

    with jobs.run_workers():
        yield served


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
    assert jobs.wait(job, PATIENCE).result == [{"approved": True, "channel": "mail", "note": ""}, 3]
    expect(page.get_by_label("Question copies")).to_contain_text("Answered: 3")


def test_budget_is_raised_by_its_form(served: tuple[Jobs, str], opened: Opened) -> None:
    """The form takes a part of a dollar, refuses what is too little, and leaves out an amount that is left empty."""
    jobs, address = served
    job = jobs.submit("model", budget={"usd": 0.1, "tokens": 9}, on_budget="ask")
    until(lambda: jobs.get_job(job.job_id).questions)  # type: ignore[union-attr]
    page = opened(f"{address}?page=job&job={job.job_id}")
    page.get_by_role("tab", name="Attempts").click()
    expect(page.get_by_role("tabpanel")).to_contain_text(re.compile(r"Started .*, now suspended"))
    budget = page.get_by_role("region", name="Budget", exact=True)
    expect(budget).to_contain_text("0.4 of 0.1 usd spent")
    expect(budget).to_contain_text("Once it is spent, the job asks a person to raise it")
    form = page.get_by_role("form", name="Question budget-1")
    expect(form).to_contain_text("0.4 of 0.1 usd spent. Add how much to the budget? 0 stops the job.")
    page.context.watch.forgiven += ["status of 422"]  # type: ignore[attr-defined]
    form.get_by_label("usd").fill("0.25")
    form.get_by_role("button", name="Answer").click()
    expect(form.get_by_role("alert")).to_contain_text("usd: is too little: still 0.4 of 0.35 usd spent")
    form.get_by_label("usd").fill("0.75")
    form.get_by_role("button", name="Answer").click()
    assert jobs.wait(job, PATIENCE).result == "paid paid "
    expect(page.get_by_label("Question budget-1")).to_contain_text('Answered: {"usd":0.75}')
    assert jobs.job_usage(job.job_id).budget == {"usd": 0.85, "tokens": 9}
    expect(budget).to_contain_text("0.8 of 0.85 usd spent")


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
