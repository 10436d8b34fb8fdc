"""An example of each answer, as OpenAPI shows it: one ingestion of ana's. Data only; a test holds them to their shapes."""

from __future__ import annotations

from typing import Any

_ID = "0199f3a2-7c1e-7d41-b2a0-5b1f0d6f9c11"
_AT = ("2026-11-25T09:30:00.123456+00:00", "2026-11-25T09:30:00.127301+00:00", "2026-11-25T09:31:12.804417+00:00")
_WORKER = "host-1:4711:1555552:1642e3e9:1"
_STAGE = {
    "name": "embed", "weight": 1.0, "done": 412, "total": 412, "unit": "chunk", "parent": None,
    "started_at": _AT[1], "ended_at": _AT[2],
}  # fmt: skip
_JOB: dict[str, Any] = {
    "job_id": _ID, "job_type": "ingestion", "status": "completed", "progress": 1.0, "message": "412 chunks of report.pdf",
    "created_at": _AT[0], "started_at": _AT[1], "completed_at": _AT[2], "error": None, "result": {"chunks": 412},
    "metadata": {"filename": "report.pdf"}, "driver": "worker", "params": {"path": "report.pdf"}, "labels": {"owner": "ana"},
    "priority": 0, "attempt": 1, "max_attempts": 3, "crashes": 0, "not_before": None, "not_after": None,
    "updated_at": _AT[2], "version": 9, "worker": _WORKER, "lease_expires_at": None, "waiting_for": None,
    "parent_id": None, "unique_key": "report.pdf", "stages": [_STAGE], "item_counts": {"done": 412, "failed": 0},
    "eta": None, "expected_start": None, "stalled": None, "receipt": None, "failure": None,
    "checkpoint_at": "2026-11-25T09:31:05.001244+00:00", "retry_of": None,
    "trace": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}  # fmt: skip
_FAILURE = {
    "kind": "error", "type": "ValueError", "message": "page 7 cannot be read", "at": _AT[2], "attempt": 1,
    "traceback": "Traceback (most recent call last):\n  ...\nValueError: page 7 cannot be read\n", "host": "host-1", "pid": 4711,
}  # fmt: skip
_SPREAD = {"p50": 61.4, "p95": 118.0, "count": 40}
_TYPE: dict[str, Any] = {
    "name": "ingestion", "doc": "Read, cut and embed a document.", "published": True, "paused": False, "limit": 4,
    "schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    "counts": {"completed": 40, "failed": 2},
}  # fmt: skip
_KEY = {
    "id": "3f9a1c07be24", "name": "ana's laptop", "scopes": ["jobs:read", "jobs:write"], "labels": {"owner": "ana"},
    "created_at": _AT[0], "expires_at": None, "revoked_at": None,
}  # fmt: skip
_HOOK = {
    "id": "5d2c90aa1f3b", "url": "https://example.org/hooks/milepost", "events": ["completed", "failed", "cancelled"],
    "q": "type:ingestion", "created_at": _AT[0], "disabled": None, "waiting": 0,
}  # fmt: skip

EXAMPLES: dict[str, dict[str, Any]] = {
    "JobRecord": _JOB,
    "JobList": {"jobs": [_JOB], "total": 1, "next_cursor": None},
    "Done": {"message": "Job cancelled", "job_id": _ID},
    "EventShape": {
        "job_id": _ID, "version": 2, "kind": "running", "at": _AT[1], "status": "running", "progress": 0.0,
        "data": {"attempt": 1, "worker": _WORKER},
    },
    "Attempts": {"attempts": [_FAILURE], "attempt": 2, "max_attempts": 3, "crashes": 0},
    "Logs": {
        "lines": [{"at": _AT[1], "level": "info", "text": "opened report.pdf", "version": 3}], "cursor": 3, "more": False,
    },
    "BulkDone": {
        "action": "retry", "done": 1, "next_cursor": None, "outcomes": [{"job_id": _ID, "outcome": "done"}],
    },
    "SessionShape": {"id": "key:3f9a1c07be24", "scopes": ["jobs:read"], "labels": {"owner": "ana"}, "auth": "keys"},
    "KeyShape": _KEY,
    "NewKey": {**_KEY, "secret": "mp_3f9a1c07be24_..."},
    "KeyList": {"keys": [_KEY]},
    "Share": {"token": "sh_...", "path": f"/api/jobs/{_ID}?share=sh_...", "expires_at": "2026-12-02T09:30:00+00:00"},
    "HookShape": _HOOK,
    "NewHook": {**_HOOK, "secret": "whsec_..."},
    "HookList": {"webhooks": [_HOOK]},
    "HookTested": {"taken": True, "status": 204, "problem": ""},
    "HookReplayed": {"queued": 12, "next_cursor": None},
    "Failures": {
        "groups": [
            {
                "group": "ValueError@reading.py:41", "type": "ValueError", "frame": "reading.py:41", "count": 2,
                "first_at": _AT[0], "last_at": _AT[2], "message": "page 7 cannot be read", "job_id": _ID,
                "job_types": ["ingestion"], "q": 'status:failed failure:"ValueError@reading.py:41"',
            }
        ],
        "complete": True,
    },
    "Stats": {
        "at": _AT[2], "window": 3600.0, "step": 60.0, "counts": {"ingestion": {"completed": 40, "failed": 2}}, "stalled": 0,
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
                "draining": False, "since_at": _AT[0], "seen_at": _AT[2], "jobs": [],
            }
        ]
    },
    "JobTypeShape": _TYPE,
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
