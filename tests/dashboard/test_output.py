"""The output and the usage of a run on the page of its job."""

from __future__ import annotations

import threading

from playwright.sync_api import expect

from milepost import Jobs, Run
from tests.dashboard.conftest import PATIENCE, Opened


def test_output_grows_while_the_run_writes_it(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served
    may_fail = threading.Event()

    @jobs.job("chat", max_attempts=2, backoff=lambda attempt: 0)
    def chat(run: Run) -> None:
        run.output(f"attempt {run.attempt}: Paris")
        run.add_usage(tokens=1000, usd=0.000812)
        if run.attempt == 1:
            may_fail.wait(PATIENCE)
            raise ValueError("the model is busy")
        run.output(" is in France.")

    with jobs.run_workers():
        job = jobs.submit(chat)
        page = opened(f"{address}?page=job&job={job.job_id}")
        output = page.get_by_role("log", name="Output")
        expect(output).to_have_text("attempt 1: Paris")
        expect(page.locator(".facts")).to_contain_text("tokens 1,000")
        expect(page.locator(".facts")).to_contain_text("usd 0.000812")
        may_fail.set()
        expect(output).to_have_text("attempt 2: Paris is in France.")
        expect(page.locator(".facts")).to_contain_text("tokens 2,000")


def test_job_without_output_has_no_place_for_it(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served
    jobs.create_job("plain", "load")
    page = opened(f"{address}?page=job&job=plain")
    expect(page.get_by_role("tab", name="Log")).to_be_visible()
    expect(page.get_by_role("heading", name="Output")).to_have_count(0)
