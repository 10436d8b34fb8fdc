"""All routes with the scope that each requires, and a valid body."""

from __future__ import annotations

from typing import Any

NEEDS: dict[tuple[str, str], str | None] = {
    ("GET", "/api/jobs"): "jobs:read",
    ("POST", "/api/jobs"): "jobs:write",
    ("POST", "/api/jobs/bulk"): None,
    ("GET", "/api/jobs/{job_id}"): "jobs:read",
    ("PATCH", "/api/jobs/{job_id}"): "jobs:write",
    ("DELETE", "/api/jobs/{job_id}"): "jobs:delete",
    ("POST", "/api/jobs/{job_id}/cancel"): "jobs:cancel",
    ("POST", "/api/jobs/{job_id}/answers"): "jobs:answer",
    ("POST", "/api/jobs/{job_id}/pause"): "jobs:write",
    ("POST", "/api/jobs/{job_id}/resume"): "jobs:write",
    ("POST", "/api/jobs/{job_id}/retry"): "jobs:write",
    ("GET", "/api/jobs/{job_id}/retry-check"): "jobs:read",
    ("GET", "/api/jobs/{job_id}/share"): "jobs:read",
    ("POST", "/api/jobs/{job_id}/share"): "jobs:read",
    ("DELETE", "/api/jobs/{job_id}/share/{link_id}"): "jobs:read",
    ("POST", "/api/jobs/{job_id}/share/{link_id}/rotate"): "jobs:read",
    ("POST", "/api/jobs/{job_id}/stop/forget"): "admin",
    ("GET", "/api/jobs/{job_id}/result"): "jobs:read",
    ("GET", "/api/jobs/{job_id}/attempts"): "jobs:read",
    ("GET", "/api/jobs/{job_id}/logs"): "jobs:read",
    ("GET", "/api/jobs/{job_id}/events"): "jobs:read",
    ("GET", "/api/jobs/{job_id}/output"): "jobs:read",
    ("GET", "/api/events"): "jobs:read",
    ("GET", "/api/failures"): "jobs:read",
    ("GET", "/api/stats"): "jobs:read",
    ("GET", "/api/workers"): "admin",
    ("GET", "/api/job-types"): "jobs:read",
    ("PATCH", "/api/job-types/{job_type}"): "admin",
    ("GET", "/api/schedules"): "jobs:read",
    ("GET", "/api/schedules/{name}"): "jobs:read",
    ("PUT", "/api/schedules/{name}"): "jobs:write",
    ("DELETE", "/api/schedules/{name}"): "jobs:delete",
    ("POST", "/api/schedules/{name}/pause"): "jobs:write",
    ("POST", "/api/schedules/{name}/resume"): "jobs:write",
    ("POST", "/api/schedules/{name}/fire"): "jobs:write",
    ("POST", "/api/batches"): "jobs:write",
    ("GET", "/api/batches/{name}"): "jobs:read",
    ("POST", "/api/batches/{name}/close"): "jobs:write",
    ("GET", "/api/usage"): "jobs:read",
    ("GET", "/api/jobs/{job_id}/usage"): "jobs:read",
    ("GET", "/api/limits"): "admin",
    ("PUT", "/api/limits/{key}"): "admin",
    ("DELETE", "/api/limits/{key}"): "admin",
    ("PUT", "/api/gates/{key}"): "admin",
    ("DELETE", "/api/gates/{key}"): "admin",
    ("GET", "/api/session"): None,
    ("GET", "/api/keys"): "admin",
    ("POST", "/api/keys"): "admin",
    ("DELETE", "/api/keys/{key_id}"): "admin",
    ("GET", "/api/doctor"): "admin",
    ("POST", "/api/purge"): "admin",
    ("GET", "/api/webhooks"): "admin",
    ("POST", "/api/webhooks"): "admin",
    ("DELETE", "/api/webhooks/{hook_id}"): "admin",
    ("POST", "/api/webhooks/{hook_id}/test"): "admin",
    ("POST", "/api/webhooks/{hook_id}/replay"): "admin",
    ("GET", "/metrics"): "admin",
}
OPEN = {
    ("POST", "/api/session"), ("DELETE", "/api/session"), ("GET", "/healthz"), ("GET", "/readyz"),
    ("GET", "/api/milepost-watch.js"),
}  # fmt: skip
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/api/jobs/{job_id}/answers"): {"key": "publish", "value": True},
    ("POST", "/api/jobs"): {"run_by": "manual"} | {"job_type": "x"},
    ("POST", "/api/jobs/bulk"): {"action": "cancel", "ids": []},
    ("PATCH", "/api/jobs/{job_id}"): {"progress": 0.1},
    ("PATCH", "/api/job-types/{job_type}"): {"paused": False},
    ("PUT", "/api/limits/{key}"): {"running": 2},
    ("PUT", "/api/gates/{key}"): {"seconds": 2},
    ("PUT", "/api/schedules/{name}"): {"job_type": "x", "every": 60},
    ("POST", "/api/batches"): {},
    ("POST", "/api/keys"): {"name": "n", "scopes": ["jobs:read"]},
    ("POST", "/api/webhooks"): {"url": "https://127.0.0.1/"},
    ("POST", "/api/webhooks/{hook_id}/replay"): {},
}


def path_of(template: str) -> str:
    """Return a path of a route with ids that do not exist."""
    for name in ("job_id", "job_type", "key_id", "hook_id", "link_id", "name"):
        template = template.replace("{" + name + "}", "nothing")
    return template
