"""Capture in workers (in a thread, in the event loop, in a child process), and what `milepost watch` shows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost import Job, Jobs, Secret, Settings
from tests.cli.subprocesses import CommandRunner, until
from tests.run import tqdm_library

pytestmark = pytest.mark.timing


@pytest.fixture
def jobs(url: str, namespace: str) -> Iterator[Jobs]:
    """Yield an application with the handlers of the tqdm library, on each store."""
    options = Settings(
        namespace=namespace, heartbeat=0.05, redact="tests.run.tqdm_library:redact", capture="tqdm,logging,stdout"
    )
    made = Jobs(url, options=options)
    for handler in tqdm_library.jobs.handlers.values():
        made.handlers.add(handler)
    yield made
    made.close()


def lines(jobs: Jobs, job: Job) -> list[tuple[str, str]]:
    """Return the log of a job: level and text of each line."""
    events = [event for event in jobs.events(job.job_id) if event.kind == "log"]
    return [(line["level"], line["text"]) for event in events for line in event.data["lines"]]


def stages(job: Job) -> list[tuple[str, float, float | None, str, bool]]:
    """Return the stages of a job."""
    return [(stage.name, stage.done, stage.total, stage.unit, stage.ended_at is not None) for stage in job.stages]


def test_capture_in_thread_and_event_loop(jobs: Jobs) -> None:
    with jobs.run_workers():
        first = jobs.submit(tqdm_library.embedding, 20, pause=0)
        second = jobs.submit(tqdm_library.embedding_async, 7)
        first, second = jobs.wait(first.job_id, 60), jobs.wait(second.job_id, 60)
    assert stages(first) == [("Embedding", 20, 20, "chunk", True)]
    assert lines(jobs, first) == [("warning", "embedded 20 chunks")]
    assert stages(second) == [("In a thread", 7, 7, "chunk", True), ("In the loop", 7, 7, "chunk", True)]
    assert lines(jobs, second) == [("warning", "embedded 7 chunks")] * 2


def test_capture_in_child_process(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)
    with jobs.run_workers():
        job = jobs.submit(tqdm_library.embedding_alone, 5, secret=Secret("hunter2"))
        job = jobs.wait(job.job_id, 60)
    assert job.status == "completed", job.error
    assert job.item_counts is not None
    assert job.item_counts.first_errors == ("order-1: ValueError: card [card] refused",)
    assert stages(job) == [("Embedding [card]", 5, 5, "chunk", True)]
    assert lines(jobs, job) == [
        ("info", "an information"),
        ("info", "printed"),
        ("error", "the secret is ***, the card [card]"),
        ("error", "from a thread"),
        ("warning", "embedded 5 chunks"),
    ]


def test_library_loop_stops_at_next_tick(jobs: Jobs) -> None:
    with jobs.run_workers():
        job = jobs.submit(tqdm_library.embedding_for_ever)
        until(lambda: (found := jobs.get_job(job.job_id)) and found.stages and found.stages[0].done > 10)
        jobs.cancel_job(job.job_id)
        until(lambda: (found := jobs.get_job(job.job_id)) and found.receipt and found.receipt.confirmed)
    ended = jobs.get_job(job.job_id)
    assert ended is not None
    assert ended.receipt is not None
    assert (ended.status, ended.receipt.how) == ("cancelled", "cooperative")


@pytest.mark.parametrize("job_type", ["embedding", "embedding-alone"])
def test_watch_shows_bar_of_library(tmp_path: Path, sqlite_url: str, job_type: str) -> None:
    with CommandRunner(tmp_path, MILEPOST_URL=sqlite_url) as milepost:
        milepost.start("worker", "tests.run.tqdm_library:jobs")
        until(lambda: milepost.rows("workers"))
        job_id = milepost.call("submit", job_type, "400").strip()
        if job_type == "embedding":
            terminal = milepost.on_terminal("watch", job_id)
            text = terminal.wait_for("/400 chunks")
            assert "Embedding" in text
            assert terminal.finish() == 0
        else:
            milepost.call("watch", job_id)
        assert "Embedding" in milepost.call("show", job_id)
        assert "embedded 400 chunks" in milepost.call("logs", job_id)
