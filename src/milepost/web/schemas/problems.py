"""Error responses (RFC 9457) in the OpenAPI document, with examples."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from milepost.web.schemas.fields import ResponseModel


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
