"""Capture of what workers run: in a thread, in the event loop, in a child process; and what `milepost watch` shows of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost import Job, Jobs, Secret, Settings
from tests.cli.programs import Program, until
from tests.tracking import library


@pytest.fixture
def jobs(url: str, namespace: str) -> Iterator[Jobs]:
    """An application with the jobs of the library, on each store."""
    options = Settings(
        namespace=namespace, pulse=0.05, redact="tests.tracking.library:redact", capture="tqdm,logging,stdout"
    )
    made = Jobs(url, options=options)
    for handler in library.jobs.handlers.values():
        made.handlers.add(handler)
    yield made
    made.close()


def lines(jobs: Jobs, job: Job) -> list[tuple[str, str]]:
    """The log of a job: each line with its level."""
    told = [event for event in jobs.events(job.job_id) if event.kind == "log"]
    return [(line["level"], line["text"]) for event in told for line in event.data["lines"]]


def stages(job: Job) -> list[tuple[str, float, float | None, str, bool]]:
    """The stages of a job."""
    return [(stage.name, stage.done, stage.total, stage.unit, stage.ended_at is not None) for stage in job.stages]


def test_a_thread_and_an_event_loop(jobs: Jobs) -> None:
    with jobs.running():
        first = jobs.submit(library.embedding, 20, pause=0)
        second = jobs.submit(library.embedding_async, 7)
        first, second = jobs.wait(first.job_id, 60), jobs.wait(second.job_id, 60)
    assert stages(first) == [("Embedding", 20, 20, "chunk", True)]
    assert lines(jobs, first) == [("warning", "embedded 20 chunks")]
    assert stages(second) == [("In a thread", 7, 7, "chunk", True), ("In the loop", 7, 7, "chunk", True)]
    assert lines(jobs, second) == [("warning", "embedded 7 chunks")] * 2


def test_a_process_of_its_own(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)
    with jobs.running():
        job = jobs.submit(library.embedding_alone, 5, secret=Secret("hunter2"))
        job = jobs.wait(job.job_id, 60)
    assert job.status == "completed", job.error
    assert stages(job) == [("Embedding [card]", 5, 5, "chunk", True)]
    assert lines(jobs, job) == [
        ("info", "an information"),
        ("info", "printed"),
        ("error", "the secret is ***, the card [card]"),
        ("error", "from a thread"),
        ("warning", "embedded 5 chunks"),
    ]


def test_a_library_that_never_looks_is_stopped_at_its_next_tick(jobs: Jobs) -> None:
    with jobs.running():
        job = jobs.submit(library.embedding_for_ever)
        until(lambda: (found := jobs.get_job(job.job_id)) and found.stages and found.stages[0].done > 10)
        jobs.cancel_job(job.job_id)
        until(lambda: (found := jobs.get_job(job.job_id)) and found.receipt and found.receipt.confirmed)
    ended = jobs.get_job(job.job_id)
    assert ended is not None
    assert ended.receipt is not None
    assert (ended.status, ended.receipt.how) == ("cancelled", "cooperative")


@pytest.mark.parametrize("job_type", ["embedding", "embedding-alone"])
def test_watch_shows_the_bar_of_a_library(tmp_path: Path, sqlite_url: str, job_type: str) -> None:
    with Program(tmp_path, MILEPOST_URL=sqlite_url) as milepost:
        milepost.start("worker", "tests.tracking.library:jobs")
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
