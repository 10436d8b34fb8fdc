"""Base classes and field types of the schemas. Requests reject unknown fields; responses may gain fields."""

from __future__ import annotations

import re
from datetime import datetime
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
