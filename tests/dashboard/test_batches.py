"""The page of a batch counts its jobs, and leads to their list."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import expect

from milepost import Jobs
from milepost.web import auth, create_app
from tests.dashboard.conftest import Opened, wait_until_served
from tests.services import free_port

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Jobs, str]]:
    """Yield the jobs of a store, and where its dashboard is."""
    store = f"sqlite:///{tmp_path}/jobs.db"
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(store, auth=auth.none()), port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    jobs = Jobs(store)
    try:
        wait_until_served(f"http://127.0.0.1:{port}", 30)
        yield jobs, f"http://127.0.0.1:{port}/jobs/"
    finally:
        server.should_exit = True
        thread.join(30)
        jobs.close()


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
    jobs.update_job("b", "failed", error="no such file")
    expect(members).to_contain_text("2 of 3 jobs have ended, 1 failed")
    members.get_by_role("link", name="Show the jobs").click()
    expect(page.locator(".body-row")).to_have_count(4)  # the batch itself is one of its group
