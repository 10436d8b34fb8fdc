"""The one line that says what a job is doing."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest

from milepost.core.activity import progress_text, stated_duration, waiting_text
from milepost.core.job import ItemCounts, Job, JobStatus, Receipt, Stage, WaitingFor
from milepost.core.serialization import to_micros
from milepost.core.values import Attempt

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
LOAD = Stage("Load", done=4, total=4, started_at="2026-11-26T12:00:00+00:00", ended_at="2026-11-26T12:00:01+00:00")
EMBED = Stage("Embed", done=2681, total=9000, unit="chunk", started_at="2026-11-26T12:00:01+00:00")


def job(status: JobStatus, message: str = "", run_by: str = "worker", **fields: Any) -> Job:
    return Job("a", "ingestion", status, 0.4, message, NOON, run_by=run_by, **fields)


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (job(JobStatus.PENDING, "Job created"), "Waiting for a worker"),
        (job(JobStatus.PENDING, "Job created", "manual"), "Not started"),
        (job(JobStatus.PENDING, "Queued by ana", "manual"), "Queued by ana"),
        (job(JobStatus.RUNNING, "Job created", "manual"), "Running"),
        (job(JobStatus.RUNNING, "half way"), "half way"),
        (job(JobStatus.RUNNING, stages=(LOAD, EMBED)), "Embed 2,681 of 9,000 chunks"),
        (job(JobStatus.RUNNING, "batch 7", stages=(LOAD, EMBED)), "Embed 2,681 of 9,000 chunks · batch 7"),
        (job(JobStatus.RUNNING, "Load finished", stages=(LOAD, EMBED)), "Embed 2,681 of 9,000 chunks"),
        (job(JobStatus.RUNNING, stages=(Stage("items", done=3),)), "3 items"),
        (job(JobStatus.RUNNING, item_counts=ItemCounts(5, 1)), "1 item failed"),
        (job(JobStatus.RUNNING, "half way", stalled="No progress for 1 min"), "No progress for 1 min · half way"),
        (job(JobStatus.RUNNING, "Job created", stalled="No progress for 1 min"), "No progress for 1 min"),
        (job(JobStatus.COMPLETED, "Job cancelled by user"), ""),
        (job(JobStatus.COMPLETED, result={"summary": "412 chunks\nmore"}), "412 chunks"),
        (job(JobStatus.COMPLETED, "All done", "manual"), "All done"),
        (job(JobStatus.FAILED, "half way", error="ValueError: page 7\n  at x"), "ValueError: page 7"),
        (job(JobStatus.CANCELLED, "half way", completed_at=NOON), "Cancelled 26 Nov 12:00:00 UTC"),
    ],
)
def test_activity_by_status(shown: Job, line: str) -> None:
    """Regression: jobs that ran or had completed still said "Job created"."""
    assert shown.activity == shown.to_dict()["activity"] == line


@pytest.mark.parametrize(
    ("confirmed", "end"),
    [(None, "stopping, waiting for the worker to confirm"), (True, "stop confirmed"), (False, "stop not confirmed")],
)
def test_activity_of_cancelled_job_names_who_and_whether_it_stopped(confirmed: bool | None, end: str) -> None:
    receipt = Receipt(NOON, "ana", "wrong file", None, None, confirmed)
    shown = job(JobStatus.CANCELLED, completed_at=NOON, started_at=NOON, receipt=receipt)
    assert shown.activity == f"Cancelled by ana 26 Nov 12:00:00 UTC; {end}"


def test_activity_of_code_past_its_grace_period_says_that_it_runs() -> None:
    receipt = Receipt(NOON, "ana", None, None, "still_running", None)
    shown = job(JobStatus.CANCELLED, completed_at=NOON, started_at=NOON, receipt=receipt)
    assert shown.activity == "Cancelled by ana 26 Nov 12:00:00 UTC; the code is still running"


LOST = Attempt(1, "w1", NOON, NOON)


@pytest.mark.parametrize(
    ("kept", "stages", "says"),
    [
        ({}, (), ""),
        ({"cursors": {"Embed": {"reached": 4, "of": 9}}}, (EMBED,), ""),
        ({"cursors": {"Embed": {"n": 4, "of": 9000}}}, (LOAD, EMBED), " · resumes Embed after 4 of 9,000 chunks"),
        ({"cursors": {"Embed": {"n": 4, "of": 9}}}, (LOAD, EMBED), " · resumes Embed after 4 of 9 items"),
        ({"cursors": {"items": {"n": 1}}}, (Stage("items"),), " · resumes after 1 item"),
        (
            {"cursors": {"Copy": {"n": 2_500_000, "of": 9_000_000}}},
            (Stage("Copy", total=9_000_000, unit="byte"),),
            " · resumes Copy after 2.5 MB of 9.0 MB",
        ),
        ({"cursors": {"a secret": {"n": 2, "of": 9}}}, (), " · resumes after 2 of 9 items"),
        ({"cursors": {"Load": {"n": 4, "of": 4}}, "state": {"x": {"n": 1}}}, (), " · resumes after 1 item"),
        (
            {"cursors": {"Load": {"n": 4, "end": True}, "x": {"n": 1}, "x[1]/y": {"n": 3}}},
            (),
            " · resumes after 1 item",
        ),
        ({"cursors": {"a": {"n": 1}, "b": {"n": 1}}}, (), " · its resumable loops continue where they stopped"),
        ({"cursors": "\x1a70000"}, (), " · its resumable loops continue where they stopped"),
        ({"checkpoint": {"page": 4}}, (), " · starts again with its checkpoint of 26 Nov 12:00:00 UTC"),
        ({"steps": {"one": 1}}, (), " · starts again with its kept steps"),
        ({"cursors": "damaged", "state": [1]}, (), ""),
    ],
)
def test_pending_job_says_where_its_next_run_continues(kept: dict[str, Any], stages: Any, says: str) -> None:
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in kept.items()}
    at = str(to_micros(NOON, "at"))
    record = {
        "type": "t", "status": "pending", "run_by": "worker", "created": at, "updated": at, "checkpoint_at": at,
        "runs": f"{at}\x1f{at}\x1f1\x1fw1\x1f", "stages": json.dumps([asdict(stage) for stage in stages]), **texts,
    }  # fmt: skip
    shown = Job.stored("a", record)
    assert shown.attempts == (LOST,)
    assert shown.activity == f"Waiting for a worker{says}"
    assert shown.stage_progress is None
    assert Job.stored("a", {**record, "status": "running", "started": at}).activity != shown.activity
    paused = Job.stored("a", {**record, "held": "user:resume"}).activity
    assert paused.startswith("Paused; a resume ")
    assert "not started" not in paused


def test_activity_is_short() -> None:
    assert len(job(JobStatus.FAILED, error="x" * 8000).activity) == 400


def test_waiting_text_of_unknown_reason_is_neutral() -> None:
    assert waiting_text(WaitingFor("of_a_later_release", {"x": 1})) == "Waiting for a worker"
    assert waiting_text(WaitingFor("limit_reached", {})) == "Waiting for a worker"
    assert waiting_text(WaitingFor("starts_at", {"at": "soon"})) == "Waiting for a worker"
    assert waiting_text(WaitingFor("many_jobs_ahead", {"count": 1200})) == "Over 1,200 jobs ahead"
    assert waiting_text(WaitingFor("previous_run_stopping")) == "Waiting for the previous run to stop"


@pytest.mark.parametrize(
    ("years", "text"), [(0, "Starts 26 Nov 12:00:00 UTC"), (2, "Starts 26 Nov {year} 12:00:00 UTC")]
)
def test_start_in_another_year_has_its_year(years: int, text: str) -> None:
    at = NOON.replace(year=NOON.year + years)
    waits = WaitingFor("starts_at", {"at": at.isoformat()})
    shown = Job("p", "import", JobStatus.PENDING, 0.0, "", NOON, run_by="worker", waiting_for=waits).activity
    assert shown == text.format(year=at.year)


@pytest.mark.parametrize(("group", "text"), [("children:p", "its children"), ("children:q", "the children of q")])
def test_parent_waits_for_its_own_children(group: str, text: str) -> None:
    waits = WaitingFor("after", {"group": group})
    assert (
        Job("p", "import", JobStatus.PENDING, 0.0, "", NOON, run_by="worker", waiting_for=waits).activity
        == f"Waiting for {text}"
    )


def test_progress_text_shows_the_stage_when_the_whole_is_unknown() -> None:
    assert progress_text(job(JobStatus.RUNNING)) == "40%"
    unknown = job(JobStatus.RUNNING, stages=(LOAD, EMBED), progress_known=False)
    assert progress_text(unknown) == "stage 2: 29%"
    for status in (JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.PENDING):
        assert progress_text(job(status, progress_known=False)) == "", "how much was left is unknown"
    assert progress_text(job(JobStatus.COMPLETED, progress_known=False)) == "40%"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.05, "50 ms"),
        (2, "2 s"),
        (2.5, "2.5 s"),
        (10, "10 s"),
        (600, "10 min"),
        (601, "10 min 1 s"),
        (7200, "2 h"),
        (36_000, "10 h"),
    ],
)
def test_chosen_duration_has_no_part_of_zero(seconds: float, said: str) -> None:
    assert stated_duration(seconds) == said
