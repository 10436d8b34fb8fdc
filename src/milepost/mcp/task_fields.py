"""A job as a task of the Model Context Protocol, with its result or error."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from mcp_types import CallToolResult, TextContent
from pydantic import ValidationError

from milepost.core.codecs import jsonable
from milepost.core.job import Job, JobStatus
from milepost.core.values import FailureKind, Question
from milepost.integrations.mapping import MCP

POLL_MS, MIN_POLL_MS, MAX_POLL_MS = 500, 250, 10_000
"""Milliseconds between two reads of a task for clients: while its end is unknown, and the limits else."""
ETA_SHARE = 10
"""Part of the remaining time after which a client reads again: a tenth."""

VALUE = "value"
"""The field of a form for an answer that is not an object."""

RECEIPT_META = "milepost/receipt"
"""The key in `_meta` for the receipt of a cancelled job."""

Convert = Callable[[Any], CallToolResult]


def task_fields(job: Job, retention: float, *, may_ask: bool = False) -> dict[str, Any]:
    """Return the fields of a task without result and error, as JSON. `retention` is in seconds after the end.

    With `may_ask` a job with an open question is `input_required`, else it is `working`.
    """
    status, completed = MCP.status_of(job), job.completed_at
    if may_ask and open_questions(job):
        status = "input_required"
    fields: dict[str, Any] = {
        "taskId": job.job_id,
        "status": status,
        **{name: None if at is None else at.isoformat() for name, at in MCP.times_of(job).items()},
        "ttlMs": None if completed is None else int(((completed - job.created_at).total_seconds() + retention) * 1000),
        "pollIntervalMs": poll_interval_ms(job, datetime.now(UTC)),
    }
    if job.activity:
        fields["statusMessage"] = job.activity
    if job.status is JobStatus.CANCELLED and job.receipt is not None:
        fields["_meta"] = {RECEIPT_META: jsonable(job.receipt)}
    return fields


def detailed_task(job: Job, retention: float, convert: Convert, *, may_ask: bool = False) -> dict[str, Any]:
    """Return the task of a job with its questions, result or error. `convert` makes the result of the tool."""
    fields = task_fields(job, retention, may_ask=may_ask)
    match fields["status"]:
        case "input_required":
            fields["inputRequests"] = {key: input_request(one) for key, one in open_questions(job).items()}
        case "completed":
            fields["result"] = tool_result(job, convert).model_dump(mode="json", by_alias=True, exclude_none=True)
        case "failed":
            kind = FailureKind.ERROR if job.failure is None else job.failure.kind
            fields["error"] = {"code": MCP.error_of(kind), "message": error_text(job)}
    return fields


def open_questions(job: Job) -> dict[str, Question]:
    """Return the questions that a job waits for, by key."""
    return {} if job.is_terminal else {one.key: one for one in job.questions if one.state == "open"}


def input_request(question: Question) -> dict[str, Any]:
    """Return the request that asks a user a question: a form with the fields of its schema, or with one field VALUE."""
    schema = dict(question.json_schema or {})
    if not _is_form(schema):
        schema = {"type": "object", "properties": {VALUE: schema or {"type": "string"}}, "required": [VALUE]}
    return {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": question.prompt, "requestedSchema": schema},
    }


def answer_of(question: Question, content: dict[str, Any]) -> Any:
    """Return the answer in the content of a form that `input_request` made."""
    return content if _is_form(question.json_schema or {}) else content.get(VALUE)


def _is_form(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object"


def tool_result(job: Job, convert: Convert) -> CallToolResult:
    """Return the result of the tool call of a job that has ended with the status `completed` of its task."""
    if job.status is JobStatus.FAILED:
        return error_result(error_text(job))
    if job.result_error is not None:
        return error_result(job.result_error)
    try:
        return convert(job.result)
    except ValidationError as error:
        return error_result(f"the result does not match the output schema: {error}")


def plain_result(value: Any) -> CallToolResult:
    """Return the result of a tool without a known output schema: text, and structured content."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=value if isinstance(value, dict) else {"result": value},
    )


def error_result(text: str) -> CallToolResult:
    """Return a result that tells the model what went wrong."""
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def error_text(job: Job) -> str:
    """Return why a job failed, in one line."""
    return job.error or job.activity or "the job failed"


def poll_interval_ms(job: Job, now: datetime) -> int:
    """Return after how many milliseconds a client reads the task again."""
    if job.eta is None:
        return POLL_MS
    left = (datetime.fromisoformat(job.eta.latest) - now).total_seconds()
    return int(min(max(left * 1000 / ETA_SHARE, MIN_POLL_MS), MAX_POLL_MS))
