"""The documentation of errors: RFC 9457, with an example of each."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from milepost.web.models.shapes import Answer


class ProblemShape(Answer):
    """RFC 9457: what went wrong."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of the errors that a route answers with, beside those that every route has."""
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


# In full at each place: a reference would hang in the air in an application whose OpenAPI is not made by us.
_PROBLEM = ProblemShape.model_json_schema()
_WORDS = {
    400: "The job's status does not allow it",
    401: "Nobody that is known",
    403: "Known, but not allowed",
    404: "No such thing, or not yours",
    409: "Taken, or not possible now",
    413: "Too large",
    415: "Not JSON",
    501: "Not installed; the detail names the pip line",
    422: "Malformed; the detail says where",
    503: "The store cannot answer; see Retry-After",
    507: "The store is full; see Retry-After",
}
