"""Base classes and field types of the schemas, examples, and error responses in the OpenAPI document."""

from __future__ import annotations

import re
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from milepost.core.codecs import jsonable
from milepost.core.errors import InvalidInputError
from milepost.core.options import YEAR
from milepost.core.record import PUBLIC
from milepost.core.serialization import seconds

_ID = "0199f3a2-7c1e-7d41-b2a0-5b1f0d6f9c11"
_AT = ("2026-11-25T09:30:00.123456+00:00", "2026-11-25T09:30:00.127301+00:00", "2026-11-25T09:31:12.804417+00:00")
_WORKER = "host-1:4711:1555552:1642e3e9:1"
_JOB: dict[str, Any] = {one.name: jsonable(one.default) if one.example is None else one.example for one in PUBLIC} | {
    "stage_progress": None,
    "activity": "",
}
_FAILURE = {
    "kind": "error", "type": "ValueError", "message": "page 7 cannot be read", "at": _AT[2], "attempt": 1,
    "traceback": "Traceback (most recent call last):\n  ...\nValueError: page 7 cannot be read\n", "host": "host-1", "pid": 4711,
}  # fmt: skip
_RUNS = [
    {"attempt": 1, "worker": _WORKER, "started_at": _AT[1], "ended_at": _AT[2], "release": "2.4.0"},
    {"attempt": 2, "worker": _WORKER, "started_at": _AT[2], "ended_at": None, "release": "2.4.0"},
]
_SPREAD = {"p50": 61.4, "p95": 118.0, "count": 40}
_TYPE: dict[str, Any] = {
    "name": "ingestion", "doc": "Read, cut and embed a document.", "published": True, "paused": False, "limit": 4,
    "schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    "counts": {"completed": 40, "failed": 2},
}  # fmt: skip
_KEY = {
    "id": "3f9a1c07be24", "name": "ana's laptop", "scopes": ["jobs:read", "jobs:write"], "labels": {"owner": "ana"},
    "types": [], "queues": [], "max_priority": None, "created_at": _AT[0], "expires_at": None, "revoked_at": None,
}  # fmt: skip
_LINK = {
    "id": "9c1d5e0f2ab47788a1b2c3d4e5f6", "by": "key:3f9a1c07be24", "may_cancel": False, "created_at": _AT[0],
    "expires_at": "2026-12-02T09:30:00+00:00",
}  # fmt: skip
_HOOK = {
    "id": "5d2c90aa1f3b", "url": "https://example.org/hooks/milepost", "events": ["completed", "failed", "cancelled"],
    "q": "type:ingestion", "created_at": _AT[0], "disabled": None, "waiting": 0, "problem": None, "next_at": None,
}  # fmt: skip
_SCHEDULE: dict[str, Any] = {
    "name": "nightly", "job_type": "reindex", "cron": "0 3 * * *", "every": None, "tz": "Europe/Berlin", "catch_up": "last",
    "overlap": "skip", "next_at": "2026-11-26T02:00:00+00:00", "last_at": "2026-11-25T02:00:00+00:00",
    "last_job_id": "nightly:20261125T020000Z", "fired": 12, "skipped": 0, "paused": None, "release": "2.4.0",
    "declared_at": _AT[0], "overridden": False, "created_at": _AT[0], "created_by": None, "labels": {"team": "search"},
    "params": {"index": "docs"}, "upcoming": ["2026-11-26T02:00:00+00:00", "2026-11-27T02:00:00+00:00"],
}  # fmt: skip
_LIMIT: dict[str, Any] = {
    "key": "embed", "running": 8, "per_partition": 2, "leases": 3, "partitions": {"acme": 2, "globex": 1},
    "rate": "500/min", "gate_until": None, "claimable": 12,
}  # fmt: skip

EXAMPLES: dict[str, dict[str, Any]] = {
    "JobRecord": _JOB,
    "ScheduleRecord": _SCHEDULE,
    "ScheduleList": {"schedules": [_SCHEDULE]},
    "LimitRecord": _LIMIT,
    "LimitList": {"limits": [_LIMIT]},
    "Usage": {
        "since": "2026-11-01", "until": "2026-11-30", "by": "label:tenant", "groups": {"acme": {"tokens": 812, "usd": 0.004}},
        "total": {"tokens": 812, "usd": 0.004}, "complete": True, "label_names": ["tenant"],
    },
    "JobUsage": {"own": {"usd": 1}, "descendants": {"usd": 2.5}, "total": {"usd": 3.5}, "budget": {"usd": 5}, "on_budget": "fail"},
    "RetryCheck": {
        "reason": "unique_key", "text": f"Cannot retry job {_ID}: a newer job has its unique key", "other": "j-9f2c",
    },
    "BatchCounts": {
        "name": "import-42", "status": "running", "closed": False, "total": 40, "open": 10, "completed": 29, "failed": 1,
        "cancelled": 0, "progress": 0.75,
    },
    "ClosedBatch": {
        "name": "import-42", "status": "completed", "closed": True, "total": 40, "open": 0, "completed": 40, "failed": 0,
        "cancelled": 0, "progress": 1.0,
    },
    "JobList": {"jobs": [_JOB], "total": 1, "next_cursor": None},
    "Done": {"message": "Job cancelled", "job_id": _ID},
    "OutputRecord": {
        "text": "Paris", "attempt": 1, "segment": 0, "offset": 0, "starts_over": True, "position": "1764000000000000.0.5",
    },
    "EventRecord": {
        "job_id": _ID, "version": 2, "kind": "running", "at": _AT[1], "status": "running", "progress": 0.0,
        "data": {"attempt": 1, "worker": _WORKER},
    },
    "Attempts": {"attempts": [_FAILURE], "runs": _RUNS, "attempt": 2, "max_attempts": 3, "crashes": 0},
    "Logs": {
        "lines": [{"at": _AT[1], "level": "info", "text": "opened report.pdf", "version": 3}], "cursor": 3, "more": False,
    },
    "BulkDone": {
        "action": "retry", "done": 1, "next_cursor": None, "outcomes": [{"job_id": _ID, "outcome": "done"}],
    },
    "Session": {"id": "key:3f9a1c07be24", "scopes": ["jobs:read"], "labels": {"owner": "ana"}, "types": [], "queues": [], "max_priority": None, "auth": "keys", "documents": True},
    "ApiKey": _KEY,
    "NewApiKey": {**_KEY, "secret": "mp_3f9a1c07be24_..."},
    "ApiKeyList": {"keys": [_KEY]},
    "Share": {**_LINK, "token": "msl_...", "path": f"/api/jobs/{_ID}?share=msl_..."},
    "ShareList": {"links": [_LINK]},
    "Webhook": _HOOK,
    "NewWebhook": {**_HOOK, "secret": "whsec_..."},
    "WebhookList": {"webhooks": [_HOOK]},
    "WebhookTested": {"taken": True, "status": 204, "problem": ""},
    "WebhookReplayed": {"queued": 12, "next_cursor": None},
    "Failures": {
        "groups": [
            {
                "group": "ValueError@reading.py:41", "type": "ValueError", "frame": "reading.py:41", "count": 2,
                "first_at": _AT[0], "last_at": _AT[2], "message": "page 7 cannot be read", "job_id": _ID,
                "job_types": ["ingestion"], "q": "status:failed failure:ValueError@reading.py:41",
            }
        ],
        "complete": True,
    },
    "Stats": {
        "at": _AT[2], "window": 3600.0, "step": 60.0, "counts": {"ingestion": {"completed": 40, "failed": 2}}, "stalled": 0, "waiting": 3,
        "oldest_pending": {
            "job_id": _ID, "job_type": "ingestion", "since": _AT[0], "activity": "No worker serves ingestion",
        },
        "steps": [{"at": _AT[0], "completed": 3, "failed": 0, "cancelled": 0}], "wait": _SPREAD, "duration": _SPREAD,
        "types": [
            {"job_type": "ingestion", "completed": 40, "failed": 2, "cancelled": 0, "duration": _SPREAD, "wait": _SPREAD}
        ],
        "complete": True,
    },
    "Workers": {
        "workers": [
            {
                "name": _WORKER, "host": "host-1", "pid": 4711, "types": ["ingestion"], "running": [], "concurrency": 10,
                "draining": False, "queues": ["ingestion"], "since_at": _AT[0], "seen_at": _AT[2], "jobs": [],
            }
        ]
    },
    "JobType": _TYPE,
    "JobTypes": {"job_types": [_TYPE]},
    "Doctor": {
        "store": "redis", "version": "8.0.2", "layout": 1, "durability": "about a second (appendfsync everysec)",
        "warnings": [], "details": {"maxmemory-policy": "noeviction"}, "stopping": [],
    },
    "Purged": {"removed": 120},
    "Alive": {"status": "ok"},
    "Ready": {
        "status": "ok", "store": "sqlite", "version": "3.40.1", "layout": 1, "durability": "power loss", "warnings": [],
    },
}  # fmt: skip


Status = Literal["pending", "running", "completed", "failed", "cancelled"]
FinalStatus = Literal["completed", "failed", "cancelled"]
Json = Any

TYPE_PATTERN = r"^[A-Za-z0-9._:/-]{1,128}$"
ID_PATTERN = r"^[A-Za-z0-9._:-]{1,128}$"


def _text_only(value: Any) -> Any:
    """Reject numbers, because their unit is unknown."""
    if value is not None and not (isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value)):
        raise ValueError("must be an ISO 8601 string, e.g. 2026-11-25T09:30:00Z")
    return value


def whole(value: Any) -> Any:
    """Return an integral float as an int. JSON has one number type, so 4.0 is 4."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _seconds(value: Any) -> Any:
    """Return the text of a duration as seconds. Numbers are seconds."""
    try:
        return seconds(value, "") if isinstance(value, str) else value
    except InvalidInputError as error:
        raise ValueError(error.problem) from None


Whole = Annotated[int, BeforeValidator(whole)]
Length = Annotated[
    float,
    Field(ge=0, le=YEAR),
    BeforeValidator(_seconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": YEAR},
                {"type": "string", "description": "Such as `90s`, `2h` or `1h30m`."},
            ]
        }
    ),
]
"""A duration of at most a year, in seconds or as text, as `milepost.Jobs.submit` takes it."""
When = Annotated[datetime, Field(strict=False), BeforeValidator(_text_only)]


class RequestModel(BaseModel):
    """A request. Unknown fields are rejected, and strings are not converted to numbers."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ResponseModel(BaseModel):
    """A response. Clients must ignore unknown fields."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema with its example."""
        shown = handler(schema)
        if cls.__name__ in EXAMPLES:
            handler.resolve_ref_schema(shown)["examples"] = [EXAMPLES[cls.__name__]]
        return shown


class Problem(ResponseModel):
    """An RFC 9457 problem."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a route's error responses, in addition to those of every route."""
    every = (401, 403, 422, 503)
    return {
        status: {
            "description": _WORDS[status],
            "content": {
                "application/problem+json": {
                    "schema": _PROBLEM,
                    "example": {
                        "type": "about:blank",
                        "title": HTTPStatus(status).phrase,
                        "status": status,
                        "detail": _WORDS[status],
                    },
                }
            },
        }
        for status in sorted({*statuses, *every})
    }


# Inlined, because a reference would not resolve in the OpenAPI document of another application.
_PROBLEM = Problem.model_json_schema()
_WORDS = {
    400: "The job's status does not allow this action",
    401: "Authentication is required or failed",
    403: "The caller lacks the required permission",
    404: "Not found, or not visible to the caller",
    409: "Conflict with an existing job or with the job's current status",
    413: "The request body is too large",
    415: "The request body is not JSON",
    501: "A required package is not installed; see detail",
    422: "The request is not valid; see detail",
    503: "The job store is unavailable; see Retry-After",
    507: "The job store is full; see Retry-After",
}
