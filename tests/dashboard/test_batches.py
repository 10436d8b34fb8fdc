"""The page of a batch counts its jobs, that of a job its children, and both lead to their list."""

from __future__ import annotations

import threading

from playwright.sync_api import expect

from milepost import Jobs, Run
from tests.dashboard.conftest import PATIENCE, Opened


def test_batch_shows_its_counts_and_leads_to_its_jobs(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served
    with jobs.batch("import-42"):
        for name in ("a", "b", "c"):
            jobs.create_job(name, "load", group="import-42")
    jobs.create_job("other", "load")
    jobs.update_job("a", "completed")
    page = opened(f"{address}?page=job&job=import-42")
    members = page.get_by_role("region", name="Jobs of the batch")
    expect(members).to_contain_text("1 of 3 jobs have ended")
    expect(page.get_by_role("progressbar")).to_have_count(1)
    jobs.update_job("b", "failed", error="no such file")
    expect(members).to_contain_text("2 of 3 jobs have ended, 1 failed")
    members.get_by_role("link", name="Show the jobs").click()
    expect(page.locator(".body-row")).to_have_count(4)  # the batch itself is one of its group


def test_cancel_of_a_batch_says_that_its_jobs_are_cancelled_and_does_so(
    served: tuple[Jobs, str], opened: Opened
) -> None:
    jobs, address = served
    with jobs.batch("import-42"):
        for name in ("a", "b"):
            jobs.create_job(name, "load", group="import-42")
    jobs.update_job("a", "completed")
    page = opened(f"{address}?page=job&job=import-42")
    page.get_by_role("button", name="Cancel job").click()
    question = page.get_by_role("dialog")
    expect(question).to_contain_text("Its open jobs are cancelled too.")
    question.get_by_role("button", name="Cancel batch", exact=True).click()
    expect(page.get_by_role("region", name="Jobs of the batch")).to_contain_text("2 of 2 jobs have ended, 1 cancelled")
    assert jobs.wait("b", PATIENCE).status == "cancelled"


def test_job_that_waits_shows_how_many_of_its_children_have_ended(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served
    go = threading.Semaphore(0)

    @jobs.job("part")
    def part(run: Run, number: int) -> None:
        go.acquire()

    @jobs.job("whole")
    def whole(run: Run) -> int:
        for number in range(3):
            run.submit_child(f"part {number}", part, number=number)
        return len(run.join())

    job = jobs.submit(whole)
    with jobs.run_workers(concurrency=1):
        try:
            page = opened(f"{address}?page=job&job={job.job_id}")
            children = page.get_by_role("region", name="Children")
            expect(children).to_contain_text("0 of 3 children have ended")
            go.release()
            expect(children).to_contain_text("1 of 3 children have ended")
        finally:
            go.release(3)
        assert jobs.wait(job, PATIENCE).result == 3


def test_completed_job_says_how_many_of_its_children_are_open(served: tuple[Jobs, str], opened: Opened) -> None:
    jobs, address = served

    @jobs.job("later")
    def later(run: Run) -> None:
        """Wait for a worker."""

    with jobs.track("block", job_id="p") as run:
        run.submit_child("a", later)
        run.submit_child("b", later)
    page = opened(f"{address}?page=job&job=p")
    expect(page.get_by_text("completed with 2 open children")).to_be_visible()
    page.get_by_role("tab", name="Events").click()
    expect(page.get_by_role("row", name="completed")).to_contain_text("with 2 open children")


def test_job_that_failed_with_its_children_leads_to_them_by_their_keys(
    served: tuple[Jobs, str], opened: Opened
) -> None:
    jobs, address = served

    @jobs.job("page", max_attempts=1)
    def convert(run: Run, number: int) -> None:
        if number == 2:
            raise ValueError("no font")

    @jobs.job("book", max_attempts=1)
    def book(run: Run) -> None:
        for number in (1, 2):
            run.submit_child(f"page-{number}", convert, number=number)
        run.join()

    job = jobs.submit(book)
    with jobs.run_workers():
        assert jobs.wait(job, PATIENCE).status == "failed"
    page = opened(f"{address}?page=job&job={job.job_id}")
    children = page.get_by_role("region", name="Children")
    expect(children).to_contain_text("2 of 2 children have ended, 1 failed")
    children.get_by_role("link", name="Show the children").click()
    failed = page.locator(".body-row").filter(has_text="no font")
    expect(failed).to_have_count(1)  # the list of all jobs has the book, too, until that of its children is there
    expect(failed.get_by_role("link")).to_have_text("page page-2")
