"""The mapping from a job to a task: each status and failure, and when to read it again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS

from milepost.core.job import Job
from milepost.core.values import Eta, Failure, FailureKind, JobStatus, Receipt
from milepost.mcp.task_fields import RECEIPT_META, detailed_task, plain_result, poll_interval_ms, task_fields

CREATED = datetime(2026, 11, 27, 12, tzinfo=UTC)


def job(status: JobStatus, **fields: object) -> Job:
    ended = None if status in (JobStatus.PENDING, JobStatus.RUNNING) else CREATED + timedelta(seconds=2)
    return Job("j1", "t", status, 0.0, "", CREATED, completed_at=ended, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "wanted"),
    [("pending", "working"), ("running", "working"), ("completed", "completed"), ("cancelled", "cancelled")],
)
def test_status_of_task(status: str, wanted: str) -> None:
    assert task_fields(job(JobStatus(status)), 60.0)["status"] == wanted


@pytest.mark.parametrize("kind", list(FailureKind))
def test_failure_is_result_or_error(kind: FailureKind) -> None:
    failed = job(JobStatus.FAILED, error="why", failure=Failure(kind))
    task = detailed_task(failed, 60.0, plain_result)
    if kind in (FailureKind.ERROR, FailureKind.TIMEOUT):
        assert task["status"] == "completed"
        assert task["result"]["isError"] is True
        assert task["result"]["content"] == [{"type": "text", "text": "why"}]
        assert "error" not in task
    else:
        code = INVALID_PARAMS if kind is FailureKind.BAD_PARAMETERS else INTERNAL_ERROR
        assert (task["status"], task["error"]) == ("failed", {"code": code, "message": "why"})
        assert "result" not in task


def test_result_that_is_not_json_is_error_with_remedy() -> None:
    task = detailed_task(job(JobStatus.COMPLETED, result_error="a socket is not JSON"), 60.0, plain_result)
    assert task["result"]["isError"] is True
    assert task["result"]["content"][0]["text"] == "a socket is not JSON"


@pytest.mark.parametrize(
    ("value", "structured"), [({"a": 1}, {"a": 1}), ([1], {"result": [1]}), (None, {"result": None})]
)
def test_result_of_unknown_tool_is_text_and_structured(value: object, structured: object) -> None:
    result = detailed_task(job(JobStatus.COMPLETED, result=value), 60.0, plain_result)["result"]
    assert result["structuredContent"] == structured
    assert json.loads(result["content"][0]["text"]) == value


def test_times_of_task() -> None:
    assert task_fields(job(JobStatus.RUNNING), 60.0)["ttlMs"] is None
    task = task_fields(job(JobStatus.COMPLETED), 60.0)
    assert (task["createdAt"], task["ttlMs"]) == ("2026-11-27T12:00:00+00:00", 62_000)


def test_receipt_of_cancelled_task_is_meta() -> None:
    cancelled = job(JobStatus.CANCELLED, receipt=Receipt(CREATED, "ana", "enough", CREATED, "returned", confirmed=True))
    receipt = task_fields(cancelled, 60.0)["_meta"][RECEIPT_META]
    assert (receipt["reason"], receipt["confirmed"]) == ("enough", True)


@pytest.mark.parametrize(("left", "wanted"), [(None, 500), (-5, 250), (1, 250), (20, 2000), (3600, 10_000)])
def test_poll_interval_is_tenth_of_remaining_time(left: float | None, wanted: int) -> None:
    latest = "" if left is None else (CREATED + timedelta(seconds=left)).isoformat()
    running = job(JobStatus.RUNNING, eta=None if left is None else Eta(latest, latest))
    assert poll_interval_ms(running, CREATED) == wanted
