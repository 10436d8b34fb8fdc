"""Base classes and field types of the schemas. Requests reject unknown fields; responses may gain fields."""

from __future__ import annotations

import re
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from milepost.web.schemas.examples import EXAMPLES

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


Whole = Annotated[int, BeforeValidator(whole)]
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
